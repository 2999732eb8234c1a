package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v2"
)

// applyUserData runs a script or applies the known part of a cloud-config; anything else is named and left alone.
func applyUserData(data []byte) error {
	switch {
	case len(bytes.TrimSpace(data)) == 0:
		say("user data: none")
		return nil
	case bytes.HasPrefix(data, []byte("#!")):
		return runScript("user data", data)
	case bytes.HasPrefix(data, []byte("#cloud-config")):
		return applyCloudConfig(data)
	case bytes.HasPrefix(data, []byte("\x1f\x8b")):
		say("user data: ignored, for it is compressed")
	default:
		first, _, _ := bytes.Cut(data, []byte("\n"))
		say("user data: ignored, for it is neither a script (#!) nor #cloud-config but begins %.40q", first)
	}
	return nil
}

// runScript runs a script as root; what it writes goes to the console and to /var/log/user-data.log.
func runScript(what string, script []byte) error {
	file := filepath.Join(stateDir, "user-data")
	if err := writeFile(file, script, 0o700); err != nil {
		return err
	}
	log, err := os.OpenFile("/var/log/user-data.log", os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	start := time.Now()
	cmd := exec.Command(file)
	cmd.Dir = "/"
	cmd.Stdout = io.MultiWriter(os.Stdout, log)
	cmd.Stderr = cmd.Stdout
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("%s: %w", what, err)
	}
	say("%s: script ended with status %d in %.1f s", what, cmd.ProcessState.ExitCode(), time.Since(start).Seconds())
	return nil
}

// cloudConfig is the subset of cloud-init's keys that this image knows; see
// https://cloudinit.readthedocs.io/en/latest/reference/modules.html.
type cloudConfig struct {
	Hostname          string        `yaml:"hostname"`
	FQDN              string        `yaml:"fqdn"`
	SSHAuthorizedKeys []string      `yaml:"ssh_authorized_keys"`
	BootCmd           []any         `yaml:"bootcmd"`
	RunCmd            []any         `yaml:"runcmd"`
	WriteFiles        []writtenFile `yaml:"write_files"`
}

type writtenFile struct {
	Path        string `yaml:"path"`
	Content     string `yaml:"content"`
	Encoding    string `yaml:"encoding"`
	Permissions any    `yaml:"permissions"`
	Append      bool   `yaml:"append"`
}

var cloudConfigKeys = map[string]bool{
	"hostname": true, "fqdn": true, "ssh_authorized_keys": true, "bootcmd": true, "runcmd": true, "write_files": true,
}

func applyCloudConfig(data []byte) error {
	var all map[string]any
	if err := yaml.Unmarshal(data, &all); err != nil {
		return fmt.Errorf("parse cloud-config: %w", err)
	}
	var ignored []string
	for k := range all {
		if !cloudConfigKeys[k] {
			ignored = append(ignored, k)
		}
	}
	sort.Strings(ignored)
	if len(ignored) > 0 {
		say("cloud-config: ignored: %s", strings.Join(ignored, ", "))
	}
	var c cloudConfig
	if err := yaml.Unmarshal(data, &c); err != nil {
		return fmt.Errorf("parse cloud-config: %w", err)
	}
	name := c.FQDN
	if name == "" {
		name = c.Hostname
	}
	var keys []string
	for _, k := range c.SSHAuthorizedKeys {
		keys = append(keys, keyLines(k)...)
	}
	errs := []error{setHostname(name), authorize(keys)}
	for _, step := range []struct {
		name string
		cmds []any
	}{{"bootcmd", c.BootCmd}, {"", nil}, {"runcmd", c.RunCmd}} {
		if step.name == "" { // files are written between the two, as cloud-init does
			for _, f := range c.WriteFiles {
				errs = append(errs, f.write())
			}
			continue
		}
		if len(step.cmds) == 0 {
			continue
		}
		script, err := shellScript(step.cmds)
		if err == nil {
			err = runScript(step.name, script)
		}
		errs = append(errs, err)
	}
	err := errors.Join(errs...)
	if err == nil {
		say("cloud-config: applied")
	}
	return err
}

func (f writtenFile) write() error {
	if !filepath.IsAbs(f.Path) {
		return fmt.Errorf("write_files: path %q is not absolute", f.Path)
	}
	data := []byte(f.Content)
	switch f.Encoding {
	case "", "text/plain":
	case "b64", "base64":
		var err error
		if data, err = base64.StdEncoding.DecodeString(strings.TrimSpace(f.Content)); err != nil {
			return fmt.Errorf("write_files: %s: %w", f.Path, err)
		}
	default:
		return fmt.Errorf("write_files: %s: unknown encoding %q", f.Path, f.Encoding)
	}
	mode := uint64(0o644)
	switch p := f.Permissions.(type) {
	case nil:
	case int: // YAML 1.1 has read 0644 as octal already
		mode = uint64(p)
	case string:
		var err error
		if mode, err = strconv.ParseUint(p, 8, 12); err != nil {
			return fmt.Errorf("write_files: %s: permissions: %w", f.Path, err)
		}
	default:
		return fmt.Errorf("write_files: %s: permissions %v", f.Path, p)
	}
	if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
		return fmt.Errorf("write_files: %w", err)
	}
	if f.Append {
		before, err := os.ReadFile(f.Path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("write_files: %w", err)
		}
		data = append(before, data...)
	}
	return writeFile(f.Path, data, fs.FileMode(mode))
}

// shellScript turns a runcmd list into a script: a string is a line of shell, a list is a command with its arguments.
func shellScript(cmds []any) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("#!/bin/sh\n")
	for i, c := range cmds {
		switch c := c.(type) {
		case string:
			b.WriteString(c)
		case []any:
			for j, arg := range c {
				if j > 0 {
					b.WriteByte(' ')
				}
				b.WriteString("'" + strings.ReplaceAll(fmt.Sprint(arg), "'", `'\''`) + "'")
			}
		default:
			return nil, fmt.Errorf("command %d is neither a string nor a list", i+1)
		}
		b.WriteByte('\n')
	}
	return b.Bytes(), nil
}

// run runs a command of the image, with its output in the error.
func run(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
