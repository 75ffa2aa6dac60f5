// Package archtest holds the rules of this repository as tests: who may import
// whom, what every package says of itself, which operations are served, and
// that the documents tell the truth about the tree. It has no code of its own.
package archtest
