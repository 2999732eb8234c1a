package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const sector = 512

// growRoot grows the root partition, the last of a DOS partition table, to the end of its disk, and the mounted ext4
// file system to the end of the partition. Nothing happens if less than 1 MiB would be won.
func growRoot() error {
	root, err := findRoot()
	if err != nil {
		return err
	}
	disk, err := os.OpenFile(root.disk, os.O_RDWR|syscall.O_EXCL|syscall.O_SYNC, 0)
	if errors.Is(err, syscall.EBUSY) { // a mounted partition makes the whole disk busy for exclusive use
		disk, err = os.OpenFile(root.disk, os.O_RDWR|syscall.O_SYNC, 0)
	}
	if err != nil {
		return err
	}
	defer disk.Close()
	mbr := make([]byte, sector)
	if _, err := disk.ReadAt(mbr, 0); err != nil {
		return fmt.Errorf("read partition table: %w", err)
	}
	grown, err := growEntry(mbr, root.number, root.start, root.diskSectors)
	if err != nil {
		return err
	}
	sectors := root.sectors
	if grown > sectors {
		if _, err := disk.WriteAt(mbr, 0); err != nil {
			return fmt.Errorf("write partition table: %w", err)
		}
		if err := resizePartition(disk, root.number, root.start, grown); err != nil {
			return err
		}
		sectors = grown
	}
	return growFileSystem(sectors)
}

// partition is where the root file system lies; sizes in sectors of 512 bytes.
type partition struct {
	disk        string
	number      int
	start       uint64
	sectors     uint64
	diskSectors uint64
}

func findRoot() (partition, error) {
	var st syscall.Stat_t
	if err := syscall.Stat("/", &st); err != nil {
		return partition{}, err
	}
	link := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	dir, err := filepath.EvalSymlinks(link)
	if err != nil {
		return partition{}, fmt.Errorf("find the root partition: %w", err)
	}
	p := partition{disk: "/dev/" + filepath.Base(filepath.Dir(dir))}
	for file, to := range map[string]*uint64{
		filepath.Join(dir, "start"):              &p.start,
		filepath.Join(dir, "size"):               &p.sectors,
		filepath.Join(filepath.Dir(dir), "size"): &p.diskSectors,
	} {
		if *to, err = readNumber(file); err != nil {
			return partition{}, err
		}
	}
	n, err := readNumber(filepath.Join(dir, "partition"))
	p.number = int(n)
	return p, err
}

func readNumber(file string) (uint64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
}

// growEntry sets the size of primary partition number (1 to 4) so that it ends at the last whole MiB of the disk, and
// returns its size in sectors, which is unchanged if less than 1 MiB would be won. A DOS table ends at 2 TiB.
func growEntry(mbr []byte, number int, start, diskSectors uint64) (uint64, error) {
	if len(mbr) != sector || !bytes.Equal(mbr[510:], []byte{0x55, 0xaa}) {
		return 0, errors.New("no DOS partition table")
	}
	if number < 1 || number > 4 {
		return 0, fmt.Errorf("partition %d is not a primary one", number)
	}
	entry := mbr[446+16*(number-1):][:16]
	if got := binary.LittleEndian.Uint32(entry[8:]); uint64(got) != start {
		return 0, fmt.Errorf("partition %d starts at sector %d on disk and at %d in the kernel", number, got, start)
	}
	size := uint64(binary.LittleEndian.Uint32(entry[12:]))
	for i := range 4 {
		other := mbr[446+16*i:][:16]
		if i != number-1 && other[4] != 0 && uint64(binary.LittleEndian.Uint32(other[8:])) > start {
			return size, nil // something lies behind it
		}
	}
	const mib = 1 << 20 / sector
	end := min(diskSectors, 1<<32-mib) / mib * mib
	if end < start+size+mib {
		return size, nil
	}
	binary.LittleEndian.PutUint32(entry[12:], uint32(end-start))
	return end - start, nil
}

// resizePartition tells the kernel the new size of a partition in use (BLKPG_RESIZE_PARTITION of linux/blkpg.h).
func resizePartition(disk *os.File, number int, start, sectors uint64) error {
	const resize = 3
	part := struct {
		start, length int64
		number        int32
		names         [128]byte
	}{start: int64(start * sector), length: int64(sectors * sector), number: int32(number)}
	arg := struct {
		op, flags, length int32
		data              unsafe.Pointer
	}{op: resize, length: int32(unsafe.Sizeof(part)), data: unsafe.Pointer(&part)}
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, disk.Fd(), unix.BLKPG, uintptr(unsafe.Pointer(&arg))); errno != 0 {
		return fmt.Errorf("resize partition %d: %w", number, errno)
	}
	return nil
}

// growFileSystem grows the mounted root to the given size (EXT4_IOC_RESIZE_FS of fs/ext4/ext4.h).
func growFileSystem(sectors uint64) error {
	const resizeFS = 0x40086610 // _IOW('f', 16, __u64), in blocks
	var before, after syscall.Statfs_t
	if err := syscall.Statfs("/", &before); err != nil {
		return err
	}
	root, err := os.Open("/")
	if err != nil {
		return err
	}
	defer root.Close()
	// The kernel does nothing if the file system has this size already.
	blocks := sectors * sector / uint64(before.Bsize)
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, root.Fd(), resizeFS, uintptr(unsafe.Pointer(&blocks))); errno != 0 {
		return fmt.Errorf("grow the root file system: %w", errno)
	}
	if err := syscall.Statfs("/", &after); err != nil {
		return err
	}
	if after.Blocks != before.Blocks {
		say("root file system: grown to %d MiB", after.Blocks*uint64(after.Bsize)>>20)
	}
	return nil
}
