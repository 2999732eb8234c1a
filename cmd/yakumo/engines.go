package main

import (
	"path/filepath"
	"strings"

	"yakumo/block"
	"yakumo/block/files"
	"yakumo/block/rbd"
	"yakumo/fault"
	"yakumo/model"
)

// openEngines opens what a host keeps volumes by; words are those of --volume-engine.
func openEngines(dir string, words []string) (map[string]block.Engine, error) {
	out := map[string]block.Engine{}
	for _, w := range append([]string{model.EngineLocal + "=" + filepath.Join(dir, "local")}, words...) {
		name, at, ok := strings.Cut(w, "=")
		if !ok || at == "" {
			return nil, fault.New(fault.Invalid, "--volume-engine %q is not NAME=WHERE.", w)
		}
		var e block.Engine
		var err error
		switch name {
		case model.EngineLocal:
			e, err = files.Open(files.Config{Dir: at, Run: filepath.Join(dir, "nbd")})
		case "nfs":
			e, err = files.Open(files.Config{Dir: at, Shared: true})
		case "rbd":
			parts := strings.Split(at, ",")
			if len(parts) != 3 {
				return nil, fault.New(fault.Invalid, "--volume-engine %q is not rbd=POOL,CONF,USER.", w)
			}
			e, err = rbd.Open(rbd.Config{Pool: parts[0], Conf: parts[1], User: parts[2]})
		default:
			err = fault.New(fault.Invalid, "--volume-engine %q: there are local, nfs and rbd.", w)
		}
		if err != nil {
			return nil, err
		}
		out[name] = e
	}
	return out, nil
}

// openRelay opens the way to volumes of other hosts.
func openRelay(dir string) (block.Relay, error) { return files.OpenRelay(filepath.Join(dir, "relay")) }
