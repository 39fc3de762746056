// Writes one layer as kit's rules say (walk order, header fields), with the tar writer of Go's standard library that kit
// uses, and prints the digest and the size of the stream. An independent oracle for the headers that are made by hand.
//
//	oracle CONTEXT PATH
package main

import (
	"archive/tar"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

type counter struct{ bytes int64 }

func (c *counter) Write(data []byte) (int, error) {
	c.bytes += int64(len(data))
	return len(data), nil
}

// holds tells whether path is parent, or lies below it.
func holds(parent, path string) bool {
	return parent == "." || parent == path || strings.HasPrefix(path, parent+"/")
}

func main() {
	context, base := os.Args[1], filepath.Clean(os.Args[2])
	if err := os.Chdir(context); err != nil {
		panic(err)
	}
	hash, count := sha256.New(), &counter{}
	archive := tar.NewWriter(io.MultiWriter(hash, count))
	err := filepath.Walk(".", func(path string, info fs.FileInfo, err error) error {
		if err != nil || path == "." {
			return err
		}
		if !holds(base, path) && !holds(path, base) {
			if info.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		if !info.IsDir() && !info.Mode().IsRegular() {
			return nil
		}
		header, err := tar.FileInfoHeader(info, "")
		if err != nil {
			return err
		}
		header.Name = path
		header.Uid, header.Gid, header.Uname, header.Gname = 1000, 0, "", ""
		header.ModTime, header.AccessTime, header.ChangeTime = time.Time{}, time.Time{}, time.Time{}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if info.IsDir() {
			return nil
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		_, err = io.Copy(archive, file)
		return err
	})
	if err == nil {
		err = archive.Close()
	}
	if err != nil {
		panic(err)
	}
	fmt.Printf("sha256:%x %d\n", hash.Sum(nil), count.bytes)
}
