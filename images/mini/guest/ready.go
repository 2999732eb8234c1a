package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// readTSC reads the processor's time stamp counter, which starts at zero with the machine.
func readTSC() uint64

// printReady prints the host name, the addresses and the time since power-on.
func printReady() error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	addresses, err := listAddresses()
	if err != nil {
		return err
	}
	if len(addresses) == 0 {
		addresses = []string{"no address"}
	}
	since, err := sincePowerOn()
	if err != nil {
		return err
	}
	say("ready in %.1f s, %s, %s", since.Seconds(), host, strings.Join(addresses, ", "))
	return nil
}

// listAddresses returns "address/length on interface" for each address that others may reach.
func listAddresses() ([]string, error) {
	ifs, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, i := range ifs {
		addrs, err := i.Addrs()
		if err != nil {
			return nil, err
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
				out = append(out, fmt.Sprintf("%s on %s", n, i.Name))
			}
		}
	}
	return out, nil
}

// sincePowerOn returns the time since the machine was switched on, firmware and boot loader included, if the time
// stamp counter tells it plausibly; it does not after a warm reboot. Otherwise it is the time since the kernel began.
func sincePowerOn() (time.Duration, error) {
	text, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(text), " ")
	seconds, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return 0, fmt.Errorf("parse /proc/uptime: %w", err)
	}
	uptime := time.Duration(seconds * float64(time.Second))

	// The counter's rate, from 20 ms of it.
	began, t0 := time.Now(), readTSC()
	time.Sleep(20 * time.Millisecond)
	t1, elapsed := readTSC(), time.Since(began)
	if t1 <= t0 {
		return uptime, nil
	}
	power := time.Duration(float64(t0) / float64(t1-t0) * float64(elapsed))
	if power < uptime || power > uptime+time.Minute {
		return uptime, nil
	}
	return power, nil
}
