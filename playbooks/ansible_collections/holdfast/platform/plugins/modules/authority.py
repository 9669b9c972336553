"""Make the site's certificate authority once, on the host that keeps its key."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.platform.plugins.module_utils import atomic

DOCUMENTATION = r"""
module: authority
short_description: The site's certificate authority
description:
  - The key is made on the host and never leaves it; it may sign for the site's domain alone.
  - An authority that exists is kept; a key without its certificate, or the reverse, is an error.
author: The Holdfast founders
options:
  directory: {description: Folder of key and certificate., type: path, required: true}
  name: {description: Common name., type: str, required: true}
  domain: {description: The only domain it may sign for., type: str, required: true}
  days: {description: Validity., type: int, default: 3650}
"""

EXAMPLES = r"""
- name: Make the authority
  holdfast.platform.authority:
    directory: /etc/holdfast/authority
    name: Holdfast example
    domain: example.internal
"""

RETURN = r"""
certificate:
  description: The authority's certificate, PEM.
  returned: always
  type: str
"""

ROOT = (0, 0)


def make(directory: Path, name: str, domain: str, days: int) -> None:
    """Write ca.key and ca.pem."""
    from cryptography import x509  # noqa: PLC0415 - a check run comes before the package
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))  # hosts whose clock is not yet right
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.NameConstraints([x509.DNSName(domain)], None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    # the certificate last: its presence says that the pair is whole
    atomic.write(directory / "ca.key", private, 0o600, ROOT)
    atomic.write(
        directory / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM), 0o644, ROOT
    )


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "name": {"type": "str", "required": True},
            "domain": {"type": "str", "required": True},
            "days": {"type": "int", "default": 3650},
        },
        supports_check_mode=True,
    )
    directory = Path(module.params["directory"])
    key, certificate = directory / "ca.key", directory / "ca.pem"
    if certificate.exists() and not key.exists():
        module.fail_json(
            msg=f"{certificate} has lost its key {key}: restore the key, "
            "or remove the certificate to begin anew"
        )
    changed = not certificate.exists()
    if changed and not module.check_mode:
        directory.mkdir(parents=True, exist_ok=True)
        make(directory, module.params["name"], module.params["domain"], module.params["days"])
    if directory.exists() and atomic.attributes_differ(directory, 0o700, ROOT):
        changed = True
        if not module.check_mode:
            directory.chmod(0o700)
    if key.exists() and atomic.attributes_differ(key, 0o600, ROOT):
        changed = True
        if not module.check_mode:
            key.chmod(0o600)
    module.exit_json(
        changed=changed, certificate=certificate.read_text() if certificate.exists() else ""
    )


if __name__ == "__main__":
    main()
