"""The names in a certificate, built and compared. Needs Debian's python3-cryptography."""

from __future__ import annotations

import ipaddress

from cryptography import x509


def general_names(names: list[str], addresses: list[str]) -> x509.SubjectAlternativeName:
    """Return the subject alternative names for DNS names and IP addresses."""
    return x509.SubjectAlternativeName(
        [
            *(x509.DNSName(name) for name in names),
            *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses),
        ]
    )


def same_names(certificate: x509.Certificate, names: list[str], addresses: list[str]) -> bool:
    """Tell whether a certificate is for exactly these names."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return set(found) == set(general_names(names, addresses))
