package libvirt

// params collects typed parameters (remote_typed_param) for a call, in the order of their adding.
type params struct {
	n    uint32
	body encoder
}

// Types of a typed parameter, virTypedParameterType.
const (
	paramUllong = 4
	paramString = 7
)

func (p *params) str(field, value string) *params {
	p.n++
	p.body.str(field).u32(paramString).str(value)
	return p
}

func (p *params) ullong(field string, value uint64) *params {
	p.n++
	p.body.str(field).u32(paramUllong).u64(value)
	return p
}

func (e *encoder) params(p *params) *encoder {
	e.u32(p.n)
	e.buf = append(e.buf, p.body.buf...)
	return e
}

// numbers reads an array of typed parameters; only whole numbers are kept.
func (d *decoder) numbers() map[string]int64 {
	n := d.count(12) // an empty name, a type and a number
	out := make(map[string]int64, n)
	for range n {
		field, value := d.param()
		out[field] = value
	}
	return out
}
