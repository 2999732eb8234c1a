package glance

import (
	"net/http"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/images"
	"yakumo/model"
)

type object = map[string]any

// schema answers with the JSON schema of what the API shows.
func schema(c *api.Context) error {
	name := c.Param("name")
	var out object
	switch name {
	case "image":
		out = imageSchema()
	case "images":
		out = listSchema("images", imageSchema())
	case "member":
		out = memberSchema()
	case "members":
		out = listSchema("members", memberSchema())
		delete(out, "links")
		props := out["properties"].(object)
		delete(props, "first")
		delete(props, "next")
	case "task":
		out = taskSchema()
	case "tasks":
		out = listSchema("tasks", taskSchema())
	default:
		return fault.New(fault.NotFound, "The resource could not be found.")
	}
	return c.JSON(http.StatusOK, out)
}

func text(description string) object { return object{"type": "string", "description": description} }

func nullText(description string) object {
	return object{"type": []string{"null", "string"}, "description": description}
}

func fixed(o object) object {
	o["readOnly"] = true
	return o
}

func choice(o object, values []string) object {
	var list []any
	if _, null := o["type"].([]string); null {
		list = append(list, nil)
	}
	for _, v := range values {
		list = append(list, v)
	}
	o["enum"] = list
	return o
}

func limited(o object, n int) object {
	o["maxLength"] = n
	return o
}

func whole(description string) object {
	return object{"type": "integer", "minimum": 0, "description": description}
}

const uuidPattern = "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$"

func imageSchema() object {
	id := text("An identifier for the image")
	id["pattern"] = uuidPattern
	return object{
		"name": "image",
		"properties": object{
			"id":               id,
			"name":             limited(nullText("Name of the image"), 255),
			"status":           fixed(choice(text("Status of the image"), []string{model.ImageQueued, model.ImageSaving, model.ImageActive, model.ImageKilled, "deleted", "uploading", model.ImageImporting, "pending_delete", model.ImageDeactivated})),
			"visibility":       choice(text("Who may see the image"), images.Visibilities()),
			"protected":        object{"type": "boolean", "description": "If true, the image cannot be deleted"},
			"os_hidden":        object{"type": "boolean", "description": "If true, the image is left out of lists that do not ask for hidden ones"},
			"checksum":         fixed(limited(nullText("MD5 of the image's data"), 32)),
			"os_hash_algo":     fixed(limited(nullText("Algorithm of os_hash_value"), 64)),
			"os_hash_value":    fixed(limited(nullText("Hash of the image's data, in hex"), 128)),
			"owner":            limited(nullText("Project that owns the image"), 255),
			"size":             fixed(object{"type": []string{"null", "integer"}, "description": "Size of the data in bytes"}),
			"virtual_size":     fixed(object{"type": []string{"null", "integer"}, "description": "Size of the disk in bytes"}),
			"container_format": choice(nullText("Format of the container"), images.ContainerFormats()),
			"disk_format":      choice(nullText("Format of the disk"), images.DiskFormats()),
			"created_at":       fixed(text("Time of creation")),
			"updated_at":       fixed(text("Time of the last change")),
			"tags":             object{"type": "array", "description": "Tags of the image", "items": object{"type": "string", "maxLength": 255}},
			"min_ram":          whole("Memory in MiB that a server needs to boot from the image"),
			"min_disk":         whole("Disk in GiB that a server needs to boot from the image"),
			"self":             fixed(text("Path of the image")),
			"file":             fixed(text("Path of the image's data")),
			"schema":           fixed(text("Path of this schema")),
			"stores":           fixed(text("Where the data is kept")),
		},
		"additionalProperties": object{"type": "string"},
		"links": []object{
			{"rel": "self", "href": "{self}"},
			{"rel": "enclosure", "href": "{file}"},
			{"rel": "describedby", "href": "{schema}"},
		},
	}
}

func memberSchema() object {
	image := text("An identifier for the image")
	image["pattern"] = uuidPattern
	return object{
		"name": "member",
		"properties": object{
			"created_at": text("Time of the offer"),
			"updated_at": text("Time of the last answer"),
			"image_id":   image,
			"member_id":  text("Project that the image is offered to"),
			"status":     choice(text("The project's answer"), []string{model.MemberPending, model.MemberAccepted, model.MemberRejected}),
			"schema":     fixed(text("Path of this schema")),
		},
	}
}

func taskSchema() object {
	id := text("An identifier for the task")
	id["pattern"] = uuidPattern
	return object{
		"name": "task",
		"properties": object{
			"id":         id,
			"type":       choice(text("Type of the task"), []string{"import"}),
			"status":     choice(text("State of the task"), []string{"pending", "processing", "success", "failure"}),
			"owner":      text("Project that owns the task"),
			"input":      object{"type": []string{"null", "object"}, "description": "What was asked for"},
			"result":     object{"type": []string{"null", "object"}, "description": "What came of it"},
			"message":    text("Why the task failed"),
			"expires_at": nullText("Time when the task is removed"),
			"created_at": text("Time of creation"),
			"updated_at": text("Time of the last change"),
			"self":       fixed(text("Path of the task")),
			"schema":     fixed(text("Path of this schema")),
		},
	}
}

// listSchema is the schema of a list of items.
func listSchema(name string, item object) object {
	return object{
		"name": name,
		"properties": object{
			name:     object{"type": "array", "items": item},
			"first":  text("Path of the first page"),
			"next":   text("Path of the next page"),
			"schema": text("Path of this schema"),
		},
		"links": []object{
			{"rel": "first", "href": "{first}"},
			{"rel": "next", "href": "{next}"},
			{"rel": "describedby", "href": "{schema}"},
		},
	}
}
