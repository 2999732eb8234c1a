// Command sudo is the guest image yakumo-mini's sudo: members of the group sudo, and root, run anything as anyone and
// are never asked for a password. It is installed set-uid root and takes the options that scripts use.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

const usage = `usage: sudo [-EHknSv] [-u USER] [VAR=VALUE]... COMMAND [ARG]...
       sudo [-EHnS] [-u USER] -i|-s [COMMAND [ARG]...]
       sudo -l | -v | -k | -V
`

type options struct {
	user        string
	login       bool // -i: a login shell in the user's home
	shell       bool // -s: the user's shell
	keepEnv     bool // -E
	setHome     bool // -H
	only        string
	assignments []string
	command     []string
}

func main() {
	o, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "sudo: %v\n%s", err, usage)
		os.Exit(1)
	}
	if err := run(o); err != nil {
		fmt.Fprintf(os.Stderr, "sudo: %v\n", err)
		if errors.Is(err, exec.ErrNotFound) {
			os.Exit(127)
		}
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	o := options{user: "root"}
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			break
		}
		if long, ok := strings.CutPrefix(arg, "--"); ok {
			name, value, _ := strings.Cut(long, "=")
			short, ok := map[string]string{"non-interactive": "n", "login": "i", "shell": "s", "preserve-env": "E", "set-home": "H",
				"stdin": "S", "list": "l", "validate": "v", "reset-timestamp": "k", "version": "V", "user": "u" + value}[name]
			if !ok {
				return o, fmt.Errorf("unknown option --%s", name)
			}
			arg = "-" + short
		}
		for flags := arg[1:]; flags != ""; {
			f := flags[0]
			flags = flags[1:]
			switch f {
			case 'n', 'S', 'b', 'P': // never asks, so there is nothing to change
			case 'k', 'K', 'v', 'l', 'V':
				o.only = string(f)
			case 'i':
				o.login = true
			case 's':
				o.shell = true
			case 'E':
				o.keepEnv = true
			case 'H':
				o.setHome = true
			case 'u', 'p', 'g':
				value := flags
				flags = ""
				if value == "" {
					if len(args) == 0 {
						return o, fmt.Errorf("option -%c needs a value", f)
					}
					value, args = args[0], args[1:]
				}
				if f == 'u' {
					o.user = value
				}
				if f == 'g' {
					return o, errors.New("option -g is not supported")
				}
			default:
				return o, fmt.Errorf("unknown option -%c", f)
			}
		}
	}
	for len(args) > 0 && strings.Index(args[0], "=") > 0 && !strings.Contains(args[0][:strings.Index(args[0], "=")], "/") {
		o.assignments = append(o.assignments, args[0])
		args = args[1:]
	}
	o.command = args
	if o.only == "k" && len(args) > 0 {
		o.only = "" // "sudo -k command" runs it
	}
	if len(args) == 0 && !o.login && !o.shell && o.only == "" {
		return o, errors.New("no command")
	}
	return o, nil
}

// user is a line of /etc/passwd.
type user struct {
	name     string
	uid, gid int
	home     string
	shell    string
}

// lookup finds a user by name, by "#id" as sudo writes it, or by number.
func lookup(match func(user) bool) (user, error) {
	text, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return user{}, err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 7 {
			continue
		}
		uid, err1 := strconv.Atoi(f[2])
		gid, err2 := strconv.Atoi(f[3])
		if err := errors.Join(err1, err2); err != nil {
			continue
		}
		if u := (user{name: f[0], uid: uid, gid: gid, home: f[5], shell: f[6]}); match(u) {
			return u, nil
		}
	}
	return user{}, errors.New("no such user")
}

// groups returns the ids of the groups that list the name, and whether sudo is one of them.
func groups(name string) (ids []int, sudo bool, err error) {
	text, err := os.ReadFile("/etc/group")
	if err != nil {
		return nil, false, err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 4 || !slices.Contains(strings.Split(f[3], ","), name) {
			continue
		}
		id, err := strconv.Atoi(f[2])
		if err != nil {
			continue
		}
		ids = append(ids, id)
		sudo = sudo || f[0] == "sudo"
	}
	return ids, sudo, nil
}

func run(o options) error {
	if os.Geteuid() != 0 {
		return errors.New("not installed set-uid root")
	}
	caller, err := lookup(func(u user) bool { return u.uid == os.Getuid() })
	if err != nil {
		return fmt.Errorf("user id %d: %w", os.Getuid(), err)
	}
	if caller.uid != 0 {
		_, allowed, err := groups(caller.name)
		if err != nil {
			return err
		}
		if !allowed {
			return fmt.Errorf("%s is not in the group sudo", caller.name)
		}
	}
	switch o.only {
	case "l":
		fmt.Printf("User %s may run the following commands:\n    (ALL : ALL) NOPASSWD: ALL\n", caller.name)
		return nil
	case "V":
		fmt.Println("sudo of Yakumo mini")
		return nil
	case "k", "K", "v":
		return nil
	}
	target, err := lookup(func(u user) bool { return u.name == o.user || "#"+strconv.Itoa(u.uid) == o.user })
	if err != nil {
		return fmt.Errorf("user %s: %w", o.user, err)
	}
	argv := o.argv(target)
	env := o.env(caller, target, argv)
	more, _, err := groups(target.name)
	if err != nil {
		return err
	}
	// The command is looked up with the new path, but must be run by the new identity.
	path, err := find(argv[0], env)
	if err != nil {
		return err
	}
	if o.login {
		if err := os.Chdir(target.home); err != nil {
			return err
		}
		argv[0] = "-" + filepath.Base(argv[0])
	}
	if err := errors.Join(
		syscall.Setgroups(append([]int{target.gid}, more...)),
		syscall.Setresgid(target.gid, target.gid, target.gid),
		syscall.Setresuid(target.uid, target.uid, target.uid),
	); err != nil {
		return fmt.Errorf("become %s: %w", target.name, err)
	}
	if err := syscall.Exec(path, argv, env); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// argv is the command, or the target's shell with the command as its -c text.
func (o options) argv(target user) []string {
	if !o.login && !o.shell {
		return o.command
	}
	shell := target.shell
	if s := os.Getenv("SHELL"); o.shell && !o.login && s != "" {
		shell = s
	}
	if len(o.command) == 0 {
		return []string{shell}
	}
	words := make([]string, len(o.command))
	for i, w := range o.command {
		words[i] = quote(w)
	}
	return []string{shell, "-c", strings.Join(words, " ")}
}

// quote makes a word that the shell reads as itself; as with sudo, "$" stays special.
func quote(w string) string {
	var b strings.Builder
	for _, r := range w {
		if !strings.ContainsRune("_-$", r) && r < 0x80 &&
			(r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

const securePath = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// env is the environment of the command: a clean one unless -E, with the target's names and who called.
func (o options) env(caller, target user, argv []string) []string {
	set := map[string]string{}
	for _, kv := range os.Environ() {
		k, v, _ := strings.Cut(kv, "=")
		if (o.keepEnv && !o.login) || slices.Contains([]string{"TERM", "LANG", "TZ", "DISPLAY", "COLUMNS", "LINES"}, k) ||
			(k == "HOME" && !o.login && o.shell && !o.setHome) {
			set[k] = v
		}
	}
	if o.setHome || o.login || set["HOME"] == "" {
		set["HOME"] = target.home
	}
	set["PATH"] = securePath
	set["SHELL"] = target.shell
	set["USER"], set["LOGNAME"] = target.name, target.name
	set["SUDO_USER"] = caller.name
	set["SUDO_UID"] = strconv.Itoa(caller.uid)
	set["SUDO_GID"] = strconv.Itoa(caller.gid)
	set["SUDO_COMMAND"] = strings.Join(argv, " ")
	for _, kv := range o.assignments {
		k, v, _ := strings.Cut(kv, "=")
		set[k] = v
	}
	out := make([]string, 0, len(set))
	for k, v := range set {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return out
}

// find returns the file of a command, by the PATH of env unless the name has a slash.
func find(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	path := securePath
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v
		}
	}
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, name)
		if st, err := os.Stat(file); err == nil && !st.IsDir() && st.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}
