"""Sign a host's request with the site's authority, for the names that the plan gives the host."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: certificate_signature
short_description: A host certificate, signed by the site's authority
description:
  - Only the public key is taken from the request; names and validity come from the arguments.
author: The Holdfast founders
options:
  directory: {description: Folder of the authority., type: path, required: true}
  request: {description: The request; PEM., type: str, required: true}
  names: {description: DNS names., type: list, elements: str, required: true}
  addresses: {description: IP addresses., type: list, elements: str, required: true}
  days: {description: Validity., type: int, default: 90}
"""

EXAMPLES = r"""
- name: Sign it
  holdfast.platform.certificate_signature:
    directory: /etc/holdfast/authority
    request: "{{ request.request }}"
    names: [control-1.example.internal]
    addresses: [192.0.2.10]
"""

RETURN = r"""
certificate:
  description: The certificate, PEM.
  returned: always
  type: str
"""


def sign(params: dict[str, Any]) -> str:
    """Return the signed certificate; ValueError where the request does not hold its own key."""
    from ansible_collections.holdfast.platform.plugins.module_utils import x509_names  # noqa: PLC0415
    from cryptography import x509  # noqa: PLC0415 - a check run comes before the package
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415

    directory = Path(params["directory"])
    key: Any = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), None)
    authority = x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes())
    request = x509.load_pem_x509_csr(params["request"].encode())
    if not request.is_signature_valid:
        raise ValueError("the request is not signed by the key it names")
    now = dt.datetime.now(dt.UTC)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    roles = [x509.ExtendedKeyUsageOID.SERVER_AUTH, x509.ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(
            x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, params["names"][0][:64])])
        )
        .issuer_name(authority.subject)
        .public_key(request.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))  # hosts whose clock is not yet right
        .not_valid_after(now + dt.timedelta(days=params["days"]))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage(roles), critical=False)
        .add_extension(
            x509_names.general_names(params["names"], params["addresses"]), critical=False
        )
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(request.public_key()), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    return str(certificate.public_bytes(serialization.Encoding.PEM).decode())


def main() -> None:
    """Run the module."""
    strings = {"type": "list", "elements": "str", "required": True}
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "request": {"type": "str", "required": True},
            "names": strings,
            "addresses": strings,
            "days": {"type": "int", "default": 90},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=True, certificate="")
    try:
        certificate = sign(module.params)
    except (ValueError, OSError) as error:
        module.fail_json(msg=f"the authority did not sign: {error}")
    module.exit_json(changed=True, certificate=certificate)


if __name__ == "__main__":
    main()
