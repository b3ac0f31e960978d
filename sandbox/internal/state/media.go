package state

import (
	"sync"
	"time"
)

// maxMediaBytes bounds the bytes of all files together; the oldest are dropped.
const maxMediaBytes = 64 << 20

// File is an uploaded file.
type File struct {
	ID        string
	AppID     string    // the account that uploaded it; no other can read it
	Kind      string    // image, voice, video, thumb
	Extension string    // of its name, in lower case, without the dot
	Data      []byte    // must not be changed
	Expires   time.Time // zero for permanent material
}

// Media holds uploaded files within a bound. It is safe for concurrent use.
type Media struct {
	mu    sync.Mutex // guards everything below
	files map[string]*File
	order []string // IDs, oldest first; deleted ones stay until they are the oldest
	size  int      // bytes of all files
}

func newMedia() *Media { return &Media{files: make(map[string]*File)} }

// Put stores a file under its ID.
func (m *Media) Put(f File) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[f.ID] = &f
	m.order = append(m.order, f.ID)
	m.size += len(f.Data)
	for m.size > maxMediaBytes || len(m.order) > maxTokens {
		m.remove(m.order[0])
		m.order = m.order[1:]
	}
}

// Temporary returns the temporary file of that ID if the account uploaded it
// and it has not expired.
func (m *Media) Temporary(appid, id string, now time.Time) (File, bool) {
	f, ok := m.find(appid, id)
	return f, ok && !f.Expires.IsZero() && now.Before(f.Expires)
}

// Permanent returns the permanent file of that ID if the account uploaded it.
func (m *Media) Permanent(appid, id string) (File, bool) {
	f, ok := m.find(appid, id)
	return f, ok && f.Expires.IsZero()
}

// find returns the file of that ID if the account uploaded it, expired or not.
func (m *Media) find(appid, id string) (File, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f := m.files[id]; f != nil && f.AppID == appid {
		return *f, true
	}
	return File{}, false
}

// Delete deletes the file of that ID, whichever account uploaded it.
func (m *Media) Delete(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.remove(id)
}

// remove deletes a file but leaves its ID in order. The caller holds m.mu.
func (m *Media) remove(id string) {
	if f := m.files[id]; f != nil {
		m.size -= len(f.Data)
		delete(m.files, id)
	}
}
