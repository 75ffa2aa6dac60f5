package doctor

import "crypto/x509"

// trusted reports why clients with the certificates of this system would
// refuse a chain.
func trusted(chain []*x509.Certificate, host string) error {
	others := x509.NewCertPool()
	for _, c := range chain[1:] {
		others.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{DNSName: host, Intermediates: others})
	return err
}
