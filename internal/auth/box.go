package auth

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"parley/internal/durable"
)

const masterKeyBytes = 32

// Box seals what must not be readable in the database or in a copy of it. A
// sealed text is one byte naming the key, a random nonce and AES-256-GCM of the
// plain text; it opens only for the owner it was sealed for, so a row copied
// under another owner stays closed. Box is safe for concurrent use.
type Box struct {
	keys []boxKey // the first seals, all open
	root []byte   // the oldest master key
}

type boxKey struct {
	id   byte
	aead cipher.AEAD
}

// NewBox makes a box of master keys of 32 bytes, the newest first. Everything
// is sealed with the newest; the older ones still open what they sealed.
func NewBox(keys ...[]byte) (*Box, error) {
	if len(keys) == 0 {
		return nil, errors.New("auth: a box needs a master key")
	}
	b := &Box{root: bytes.Clone(keys[len(keys)-1])}
	for _, k := range keys {
		bk, err := newBoxKey(k)
		if err != nil {
			return nil, err
		}
		b.keys = append(b.keys, bk)
	}
	return b, nil
}

func newBoxKey(master []byte) (boxKey, error) {
	if len(master) != masterKeyBytes {
		return boxKey{}, fmt.Errorf("auth: a master key has %d bytes, not %d", masterKeyBytes, len(master))
	}
	// The cipher gets a key of its own, so that it never shares one with the
	// HMAC that makes installation keys. One more byte names the key.
	k, err := hkdf.Key(sha256.New, master, nil, "parley seal 1", masterKeyBytes+1)
	if err != nil {
		return boxKey{}, fmt.Errorf("auth: derive sealing key: %w", err)
	}
	block, err := aes.NewCipher(k[:masterKeyBytes])
	if err != nil {
		return boxKey{}, fmt.Errorf("auth: sealing key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return boxKey{}, fmt.Errorf("auth: sealing key: %w", err)
	}
	return boxKey{k[masterKeyBytes], aead}, nil
}

// Seal encrypts plain for owner, the id of the row it will stand in.
func (b *Box) Seal(plain []byte, owner string) []byte {
	k := b.keys[0]
	return k.aead.Seal([]byte{k.id}, nil, plain, []byte(owner))
}

var errSealed = errors.New("auth: the sealed text does not open: wrong master key, wrong owner or damaged")

// Open decrypts what Seal made for the same owner. It never returns part of a
// damaged text.
func (b *Box) Open(sealed []byte, owner string) ([]byte, error) {
	if len(sealed) == 0 {
		return nil, errSealed
	}
	for _, k := range b.keys {
		// Two keys may share a name: it only saves tries, the cipher decides.
		if k.id != sealed[0] {
			continue
		}
		if plain, err := k.aead.Open(nil, nil, sealed[1:], []byte(owner)); err == nil {
			return plain, nil
		}
	}
	return nil, errSealed
}

// InstallationKey is the key that signs the user keys of the installation with
// this webhook id when it has no encryption key of its own. It comes from the
// oldest master key, so that user keys outlive a rotation.
func (b *Box) InstallationKey(webhookID string) []byte {
	m := hmac.New(sha256.New, b.root)
	m.Write([]byte(webhookID))
	return m.Sum(nil)
}

// Fingerprint names what shares this box for a purpose, such as the servers of
// one installation on a bus they share with others. It comes from the oldest
// master key and tells nothing about it.
func (b *Box) Fingerprint(purpose string) string {
	m := hmac.New(sha256.New, b.root)
	m.Write([]byte("fingerprint " + purpose))
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil)[:12])
}

// LoadMasterKey reads a master key file: one key of 32 bytes in base64 a line,
// the newest first. It refuses a file that others may read. A missing file is
// fs.ErrNotExist.
func LoadMasterKey(path string) (*Box, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("master key: %w", err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("master key: %s may be read by other users of this machine (mode %04o); run chmod 600 %s", path, info.Mode().Perm(), path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("master key: %w", err)
	}
	keys, err := parseMasterKeys(text)
	if err != nil {
		return nil, fmt.Errorf("master key: %s: %w", path, err)
	}
	return NewBox(keys...)
}

func parseMasterKeys(text []byte) ([][]byte, error) {
	var keys [][]byte
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(key) != masterKeyBytes {
			// The line itself is a secret and stays out of the message.
			return nil, fmt.Errorf("line %d is not a key of %d bytes in base64", n, masterKeyBytes)
		}
		keys = append(keys, key)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return nil, errors.New("the file holds no key")
	}
	return keys, nil
}

// CreateMasterKey writes a file with a fresh key, readable by its owner alone,
// and returns its box. It never touches a file that exists (fs.ErrExist): the
// key in it may be the only way to what was sealed.
func CreateMasterKey(path string) (*Box, error) {
	var key [masterKeyBytes]byte
	rand.Read(key[:])
	if err := durable.Create(path, []byte(base64.StdEncoding.EncodeToString(key[:])+"\n")); err != nil {
		return nil, fmt.Errorf("master key: %w", err)
	}
	return NewBox(key[:])
}
