package cli

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"

	"github.com/fairleadhq/fairlead"
)

// nobody is the account that the kernel names for one that has no number here (/proc/sys/kernel/overflowuid).
const nobody = 65534

// peerOf asks the kernel which account opened a connection to a unix socket.
func peerOf(c net.Conn) (fairlead.Facet, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return fairlead.Facet{}, errors.New("the connection is not one of a unix socket: who opened it is not known")
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return fairlead.Facet{}, fmt.Errorf("asking who opened the connection: %w", err)
	}
	var cred *syscall.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err = errors.Join(err, credErr); err != nil {
		return fairlead.Facet{}, fmt.Errorf("asking who opened the connection: %w", err)
	}
	if cred.Uid == nobody {
		return fairlead.Facet{}, errors.New("the account that opened the connection has no number in this namespace: who it is is not known")
	}
	return fairlead.Facet{Value: "unix:" + strconv.FormatUint(uint64(cred.Uid), 10), Assurance: fairlead.Attested, Method: "unix-peer"}, nil
}
