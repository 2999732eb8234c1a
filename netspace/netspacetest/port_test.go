package netspacetest_test

import (
	"net"
	"testing"

	"yakumo/netspace/netspacetest"
)

func TestPort(t *testing.T) {
	seen := map[uint16]bool{}
	for range 200 {
		at := netspacetest.Loopback(t)
		if seen[at.Port()] {
			t.Fatalf("%s was given twice", at)
		}
		seen[at.Port()] = true
		if c, err := net.Dial("tcp", at.String()); err == nil {
			t.Fatalf("%s answers before anybody listens", c.RemoteAddr())
		}
		for range 2 { // who listened is followed by another, with a connection that is not yet forgotten
			ln, err := net.Listen("tcp", at.String())
			if err != nil {
				t.Fatal(err)
			}
			c, err := net.Dial("tcp", at.String())
			if err != nil {
				t.Fatal(err)
			}
			s, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			ln.Close()
			s.Close()
			c.Close()
		}
	}
}
