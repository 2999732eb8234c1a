// Package images is the catalogue of guest images: who sees and who may change an entry,
// how bytes come in, what makes an image bootable, and which bytes may be thrown away.
//
// An image becomes active in one transaction, and only after its bytes are complete,
// hashed, durable and found to be what disk_format says; before that nothing can boot
// from them. Every upload has a blob of its own, so no upload ever writes over another.
//
// An upload under way holds a row in ImageUploads that goes with the lease of the server
// that receives the bytes. A saving image without that row has lost its uploader and goes
// back to queued (Run does that, on every server). A blob that no image, no upload and no
// server refers to is an orphan and is removed. The bytes of a deleted image stay for as
// long as a server that was made from it is there, so that a host may still fetch them.
//
// Reads: Images, ImageUploads, ImageTasks, Servers (which blobs are in use). Writes: Images,
// ImageUploads, ImageTasks, and Blobs. Imports fault, model and store of the project; must not
// import api, another part, or a Blobs implementation.
package images
