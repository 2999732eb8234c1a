package images_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"yakumo/images"
	"yakumo/model"
	"yakumo/store/embed"
	"yakumo/store/storetest"
)

const uploaderEnv = "IMAGES_TEST_UPLOADER"

// TestUploaderProcess is a server process of TestKillInTheMiddleOfAnUpload: it uploads,
// says so when the first bytes are with it, and goes on until it is killed. Started by
// itself it has nothing to do.
func TestUploaderProcess(t *testing.T) {
	args := strings.Fields(os.Getenv(uploaderEnv))
	if len(args) != 3 {
		return
	}
	s := shelfOn(t, storetest.Open(t, storetest.Dial(t, args[0]), "/t/"), args[1])
	sent := 0
	_, err := s.Upload(t.Context(), owner, args[2], images.Expect{Size: -1}, reader(func(p []byte) (int, error) {
		if sent >= 4<<20 {
			fmt.Println("half")
			select {}
		}
		sent += len(p)
		return len(p), nil
	}))
	t.Fatalf("the upload ended: %v", err)
}

func TestKillInTheMiddleOfAnUpload(t *testing.T) {
	etcd, err := os.MkdirTemp("", "ykm-etcd-") // short: a socket is in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(etcd) })
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	member, err := embed.Start(ctx, embed.Config{Dir: etcd, Unsafe: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(member.Close)
	s := shelfOn(t, storetest.Open(t, member.Client, "/t/"), t.TempDir())
	s.run(t)
	img := s.queued(t, "raw")

	child := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestUploaderProcess$")
	child.Env = append(os.Environ(), fmt.Sprintf("%s=unix://%s/client.sock %s %s", uploaderEnv, etcd, s.dir, img.ID))
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "half\n" {
		t.Fatalf("the uploader says %q (%v)", line, err)
	}
	if got := s.row(t, img.ID); got.Status != model.ImageSaving {
		t.Errorf("the image is %s, want saving", got.Status)
	}
	if _, err := s.Bootable(s.st.Snapshot(), owner, img.ID); err == nil {
		t.Error("half an image is bootable")
	}
	if n := s.files(t); n != 1 {
		t.Errorf("%d files, want the half one", n)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := child.Wait(); err == nil {
		t.Fatal("the uploader ended by itself")
	}
	s.untilStatus(t, img.ID, model.ImageQueued)
	until(t, "the half file goes", func() bool { return s.files(t) == 0 })
	s.whole(t, img.ID)
}
