// Package powertest is a disk from which a test takes the power: a file system,
// mounted for as long as the test runs, on which any program can be started. For
// tests only.
//
//	disk := powertest.New(t, seed)
//	… programs work below disk.Dir …
//	disk.Cut()    // from here on every call of theirs fails with EIO
//	… they are killed …
//	disk.On()     // mounted again, with what the disk has kept
//
// # What a disk keeps
//
// Everything is there twice: as programs see it, and as the disk has it. What a
// program does happens to the first, in memory; fsync, fdatasync, O_SYNC, O_DSYNC
// and msync carry it over to the second:
//
//   - of a file, its content and its size;
//   - of a directory, which names it has, and for what.
//
// Nothing else does: not close, not sync_file_range, and not the sync of a file
// for the name of that file. PostgreSQL relies on the last, for tables that are
// new; for such programs Journal gives a disk on which it holds, as it does on
// ext4, XFS and btrfs.
//
// When the power goes, dice decide about the rest. Of every page (4 KiB) that was
// written since, the disk has the old content or the new, or some sectors (512
// bytes) of each. The size of a file is the old one, the new one or one between;
// what lies between is then zeros where its pages are not kept. Each change of a directory has
// happened or has not, whatever came before and after it. A page that is
// written again and again may be kept as it was in between: now and then a page
// goes to the disk by itself, as in a kernel that writes back.
//
// So later writes may be kept where earlier ones are lost. That is as much as
// POSIX allows and more than ext4 and XFS do, but for what every program relies
// on:
//
//   - a sector is written whole or not at all;
//   - a rename happens whole or not at all, and what a name stood for is either
//     the old file or the new one;
//   - what was synced stays, and so do the parts of a page that nobody writes to.
//
// Not modelled: owners, modes and times, which are kept as they are; disks that
// lie about their syncs, unless Lies is set; sectors that cannot be read any
// more. There are no symbolic links, devices or extended attributes.
//
// # How it is mounted
//
// Over FUSE: as root by mount(2), otherwise by fusermount3. It lives in the
// memory of the test alone, so a gigabyte written is a gigabyte used. The test
// itself may look at files below Dir while it starts no programs: a program that
// is being started holds up this one, and one that waits for a file here would
// then wait for ever.
package powertest
