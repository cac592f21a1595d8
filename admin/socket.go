package admin

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// socketMode lets the director's user and group in. Connecting needs the
// right to write.
const socketMode = 0o660

// A socket is a unix socket with the lock that says whose it is.
//
// The lock is a file beside the socket that the kernel unlocks when the
// process ends, however it ends. Whoever has it may remove a socket that a
// crash left behind; without it two directors that start together could each
// remove the other's.
type socket struct {
	listener net.Listener
	lock     *os.File
	madeDir  string // the directory, where it was not there before
}

func listenSocket(path string) (*socket, error) {
	s := &socket{}
	dir := filepath.Dir(path)
	switch err := os.Mkdir(dir, 0o755); {
	case err == nil:
		s.madeDir = dir
	case !errors.Is(err, fs.ErrExist):
		return nil, fmt.Errorf("admin.socket: %w", unwritable(err))
	}
	var err error
	if s.lock, err = lockFile(path + ".lock"); err != nil {
		return nil, errors.Join(fmt.Errorf("admin.socket %s: %w", path, err), s.close())
	}
	if err := removeLeft(path); err != nil {
		return nil, errors.Join(fmt.Errorf("admin.socket: %w", err), s.close())
	}
	before := syscall.Umask(0o777 &^ socketMode) // no moment at which the socket is open to all
	s.listener, err = net.Listen("unix", path)
	syscall.Umask(before)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("admin.socket: %w", err), s.close())
	}
	return s, nil
}

// unwritable is err with what mends it.
func unwritable(err error) error {
	mend := "make the directory"
	if errors.Is(err, fs.ErrPermission) {
		mend = "run uvs as root"
	}
	return fmt.Errorf("%w; %s, or set admin.socket to a place that can be written", err, mend)
}

// removeLeft removes the socket that a crash left at path. Whatever else is
// there was put there by somebody: a wrong path in the configuration must not
// cost a file.
func removeLeft(path string) error {
	switch there, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case there.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there and is no socket; remove it, or set admin.socket to another path", path)
	}
	return os.Remove(path)
}

// errInUse says that another process has the lock.
var errInUse = errors.New("another uvs is running; stop it, or give this one an admin.socket and a device.name of its own")

// lockFile takes the lock on the file at path. The file that was locked may
// have been removed by its last owner meanwhile: then it is not the lock any
// more, and the next is tried.
func lockFile(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, unwritable(err)
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			f.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				return nil, errInUse
			}
			return nil, err
		}
		locked, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, err
		}
		if there, err := os.Stat(path); err == nil && os.SameFile(locked, there) {
			return f, nil
		}
		f.Close()
	}
}

// close removes the socket, the lock and the directory if it was made here
// and nobody else has put anything into it.
func (s *socket) close() error {
	var errs []error
	if s.listener != nil {
		if err := s.listener.Close(); !errors.Is(err, net.ErrClosed) { // removes the socket
			errs = append(errs, err)
		}
	}
	if s.lock != nil {
		errs = append(errs, os.Remove(s.lock.Name()), s.lock.Close())
	}
	if s.madeDir != "" {
		_ = os.Remove(s.madeDir) // not empty: somebody else uses it now
	}
	return errors.Join(errs...)
}
