package deploy

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// newKey makes an Ed25519 key pair in OpenSSH's forms.
func newKey(comment string) (private, public string, err error) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", "", fmt.Errorf("make a key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(priv, comment)
	if err != nil {
		return "", "", fmt.Errorf("make a key: %w", err)
	}
	p, err := ssh.NewPublicKey(pub)
	if err != nil {
		return "", "", fmt.Errorf("make a key: %w", err)
	}
	return string(pem.EncodeToMemory(block)), strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(p)), "\n") + " " + comment, nil
}

// publicKey reads a line of the form of authorized_keys.
func publicKey(line string) (ssh.PublicKey, error) {
	k, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	return k, err
}
