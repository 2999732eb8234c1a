package model

import "time"

// Environment says where all that a project has is to be: in one availability zone. While the row is there, servers and volumes of the
// project that are elsewhere are moved, and new servers that ask for no zone are made there.
type Environment struct {
	ProjectID ID        `json:"project_id"`
	Zone      string    `json:"zone"`
	UserID    ID        `json:"user_id"` // who asked for it
	At        time.Time `json:"at"`      // when
}
