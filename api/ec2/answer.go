package ec2

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"net/http"

	"yakumo/api"
	"yakumo/fault"
)

// set is a list in an answer: an element with an item for each.
type set[T any] struct {
	Items []T `xml:"item"`
}

// setOf makes a list.
func setOf[T any](items ...T) set[T] { return set[T]{items} }

// done is the body of the operations that only say that they were carried out.
type done struct {
	Return bool `xml:"return"`
}

// answer writes the response of an operation; body is a struct, whose fields stand behind the request id.
func answer(c *api.Context, name string, body any) error {
	var b bytes.Buffer
	if err := xml.NewEncoder(&b).EncodeElement(body, xml.StartElement{Name: xml.Name{Local: "x"}}); err != nil {
		return err
	}
	inner := bytes.TrimSuffix(bytes.TrimPrefix(b.Bytes(), []byte("<x>")), []byte("</x>"))
	out := struct {
		XMLName   xml.Name
		Space     string `xml:"xmlns,attr"`
		RequestID string `xml:"requestId"`
		Body      []byte `xml:",innerxml"`
	}{xml.Name{Local: name + "Response"}, "http://ec2.amazonaws.com/doc/" + apiVersion + "/", c.RequestID, inner}
	return write(c, http.StatusOK, out)
}

func write(c *api.Context, status int, v any) error {
	body, err := xml.Marshal(v)
	if err != nil {
		return err
	}
	return c.Bytes(status, "text/xml;charset=UTF-8", append([]byte(xml.Header), body...))
}

// failure is the body of an error.
type failure struct {
	XMLName   xml.Name `xml:"Response"`
	Code      string   `xml:"Errors>Error>Code"`
	Message   string   `xml:"Errors>Error>Message"`
	RequestID string   `xml:"RequestID"`
}

// codes are EC2's general error codes for kinds of error that say no code of their own.
var codes = map[fault.Kind]string{
	fault.Invalid: "InvalidParameterValue", fault.Unauthorized: "AuthFailure", fault.Forbidden: "UnauthorizedOperation", fault.NotFound: "InvalidAction",
	fault.Conflict: "IncorrectState", fault.OverQuota: "ResourceCountExceeded", fault.TooLarge: "RequestEntityTooLarge", fault.Precondition: "OperationNotPermitted",
	fault.Unavailable: "Unavailable", fault.NotImplemented: "UnsupportedOperation", fault.Unsupported: "UnsupportedOperation", fault.Gone: "InvalidAction",
}

// writeError answers in EC2's form: 400 for whatever is the client's fault but who he is (401) and what he may (403), and what a dry run
// found to be right (412).
func writeError(c *api.Context, status int, err error) {
	text := api.Text(status, err)
	code := cmp.Or(fault.CodeOf(err), codes[fault.KindOf(err)], "InternalError") // the parts' own codes were recoded where they came up (recoding)
	switch {
	case fault.CodeOf(err) == errDryRun.Code:
	case status >= 500 && status != http.StatusNotImplemented:
	case fault.Is(err, fault.Unauthorized):
		if code == "AuthFailure" {
			text = "AWS was not able to validate the provided access credentials"
		}
	case fault.Is(err, fault.Forbidden):
	case fault.KindOf(err) == fault.NotFound && code == "InvalidAction":
		text = "The action or operation requested is invalid. Verify that the action is typed correctly, and that this cloud serves it."
		status = http.StatusBadRequest
	default:
		status = http.StatusBadRequest
	}
	if err := write(c, status, failure{Code: code, Message: text, RequestID: c.RequestID}); err != nil {
		c.Log.Error("an error could not be written", "err", err)
	}
}
