// Package linkpb is the envelope of the link's messages as protoc makes it of link.proto. It
// owns no behaviour; only package link imports it, and it imports nothing of the project.
package linkpb
