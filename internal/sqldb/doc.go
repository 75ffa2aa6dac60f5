// Package sqldb runs the same SQL text on SQLite and PostgreSQL and makes
// writes durable before it says so. It knows no table but its own.
//
// # One text
//
// Statements use $1, $2, … and stay inside the subset that subset_test.go runs
// on both engines. What differs is written in braces and replaced when a text
// is first seen: {for_update} and {skip_locked} in statements; {json}, {bytes},
// {without_rowid}, {concurrently} and {c} in migrations. Errors of the drivers are classified
// here: ErrNoRow, IsUnique, ErrText.
//
// # Writing
//
// A write is a closure over a Tx. It may run again, so it touches nothing but
// the Tx and variables that each run sets anew.
//
//	SQLite      Write ─┐
//	            Write ─┼─► queue ─► writer: BEGIN  a b c …  COMMIT ─► disk ─► a, b, c return
//	            Write ─┘   ≤ 4096           one goroutine, ≤ 256
//
//	PostgreSQL  Write ───► a connection:    BEGIN  a  COMMIT ─► disk ─► a returns
//
// On SQLite everything that waits when a commit ends makes the next one, and
// nobody waits for company. One sync of the disk is shared by all of them, so
// durable writes become cheaper as more of them come.
//
// A closure that fails without having changed anything keeps its error, and the
// others go on. If it has changed something, all is rolled back, the others run
// again without it, and it runs again alone, for its error may have come from a
// neighbour. From the third on, each closure of the batch gets a transaction of
// its own. A panic is the error of its closure. A failed commit is the error of
// all; a failed sync ends the process, because the system may have dropped the
// pages and would report the next sync as good.
//
// On PostgreSQL each statement goes to the server and back while the transaction
// holds its locks. BEGIN goes with the first, and what Send takes with the next one
// or with COMMIT.
//
// On PostgreSQL a closure is run again, up to three times, when the server
// chose it to give way (40001, 40P01) or the connection broke before the commit.
//
// What is registered with AfterCommit runs once, after the commit that carried
// the run that registered it.
//
// # Reading
//
// A reader runs each query by itself, on connections that cannot write. It sees
// every write that has returned. Cancelling its context ends the query.
//
// # The log of SQLite
//
// The database is in WAL mode with synchronous = FULL. A connection of its own
// moves the log into the file beside the writer; when the log gets long, the
// writer moves the rest between two transactions so that the log can start
// again. Package lite gathers the pages of a commit into few system calls.
//
// No mutex of this package is held while another one is taken.
package sqldb
