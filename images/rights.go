package images

import (
	"yakumo/fault"
	"yakumo/model"
)

// Caller is on whose behalf something is done.
type Caller struct {
	ProjectID model.ID // empty: none
	Admin     bool     // a cloud administrator
}

func (c Caller) owns(img *model.Image) bool {
	return c.Admin || c.ProjectID != "" && c.ProjectID == img.ProjectID
}

// Sees tells whether the caller may see the image: it is the caller's own, public, of the
// community, or shared with the caller's project, whatever that has answered.
func (c Caller) Sees(img *model.Image) bool {
	if c.owns(img) {
		return true
	}
	switch img.Visibility {
	case model.VisibilityPublic, model.VisibilityCommunity:
		return true
	case model.VisibilityShared:
		_, member := img.Members[c.ProjectID]
		return member && c.ProjectID != ""
	}
	return false
}

// publicise refuses to make an image public on anybody's behalf but an administrator's.
func publicise(by Caller, before string, img *model.Image) error {
	if img.Visibility == model.VisibilityPublic && before != model.VisibilityPublic && !by.Admin {
		return fault.New(fault.Forbidden, "You are not authorized to complete publicize_image action.")
	}
	return nil
}
