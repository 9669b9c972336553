"""Keep a host's private key on the host, and say whether its certificate must be signed anew."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.platform.plugins.module_utils import atomic

DOCUMENTATION = r"""
module: certificate_request
short_description: A host's key, and a request when its certificate does not do
description:
  - Makes the key where it is used. Only the request leaves the host.
author: The Holdfast founders
options:
  directory: {description: Folder of host.key and host.pem., type: path, required: true}
  group: {description: Group that may read the key., type: str, required: true}
  authority: {description: The authority's certificate; PEM., type: str, required: true}
  names: {description: DNS names., type: list, elements: str, required: true}
  addresses: {description: IP addresses., type: list, elements: str, required: true}
  renew_days: {description: Renew when less validity than this is left., type: int, default: 30}
"""

EXAMPLES = r"""
- name: Ask for a certificate
  holdfast.platform.certificate_request:
    directory: /etc/holdfast/tls
    group: holdfast-tls
    authority: "{{ certificate_authority_certificate }}"
    names: [control-1.example.internal]
    addresses: [192.0.2.10]
  register: request
"""

RETURN = r"""
needed:
  description: Why a new certificate is needed; empty when it is not.
  returned: always
  type: str
request:
  description: The signing request, PEM; empty when none is needed.
  returned: always
  type: str
certificate:
  description: The certificate that is there, PEM.
  returned: always
  type: str
"""


def ensure_key(path: Path, ids: tuple[int, int], *, dry: bool) -> bool:
    """Make the key if it is absent, mend its mode; return whether something was done."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - a check run comes before the package
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    if path.exists():
        if not atomic.attributes_differ(path, 0o640, ids):
            return False
        if not dry:
            import os  # noqa: PLC0415

            os.chown(path, *ids)
            path.chmod(0o640)
        return True
    if not dry:
        private = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(path, private, 0o640, ids)
    return True


def shortcoming(found: bytes, key: Any, params: dict[str, Any]) -> str:  # noqa: ANN401 - any of cryptography's key classes
    """Say what is wrong with the certificate that is there; empty when nothing is."""
    from ansible_collections.holdfast.platform.plugins.module_utils import x509_names  # noqa: PLC0415
    from cryptography import exceptions, x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    if not found:
        return "there is none"
    try:
        certificate = x509.load_pem_x509_certificate(found)
    except ValueError:
        return "it cannot be read"
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if certificate.public_key().public_bytes(*form) != key.public_key().public_bytes(*form):
        return "it is for another key"
    authority = x509.load_pem_x509_certificate(params["authority"].encode())
    try:
        authority.public_key().verify(
            certificate.signature,
            certificate.tbs_certificate_bytes,
            ec.ECDSA(certificate.signature_hash_algorithm),
        )
    except exceptions.InvalidSignature:
        return "another authority signed it"
    if not x509_names.same_names(certificate, params["names"], params["addresses"]):
        return "its names differ"
    left = certificate.not_valid_after - dt.datetime.utcnow()  # noqa: DTZ003 - Debian's version speaks naive UTC
    return f"{left.days} days are left" if left < dt.timedelta(days=params["renew_days"]) else ""


def request_for(key: Any, name: str) -> str:  # noqa: ANN401 - any of cryptography's key classes
    """Return a signing request; its names count for nothing, the authority sets them."""
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415

    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name[:64])])
    request = (
        x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    )
    return str(request.public_bytes(serialization.Encoding.PEM).decode())


def main() -> None:
    """Run the module."""
    strings = {"type": "list", "elements": "str", "required": True}
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "group": {"type": "str", "required": True},
            "authority": {"type": "str", "required": True},
            "names": strings,
            "addresses": strings,
            "renew_days": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    directory = Path(module.params["directory"])
    try:
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    except ImportError:
        if module.check_mode:
            module.exit_json(changed=True, needed="there is none", request="", certificate="")
        module.fail_json(msg="python3-cryptography is not installed; does base_system run first?")
    try:
        ids = atomic.owner_ids("root", module.params["group"])
    except KeyError as error:
        module.fail_json(msg=f"{error.args[0]}; does base_system run first?")
    changed = ensure_key(directory / "host.key", ids, dry=module.check_mode)
    if not (directory / "host.key").exists():
        module.exit_json(changed=True, needed="there is none", request="", certificate="")
    key = serialization.load_pem_private_key((directory / "host.key").read_bytes(), None)
    path = directory / "host.pem"
    found = path.read_bytes() if path.exists() else b""
    needed = shortcoming(found, key, module.params)
    request = request_for(key, module.params["names"][0]) if needed else ""
    module.exit_json(
        changed=changed or bool(needed),
        needed=needed,
        request=request,
        certificate=found.decode(errors="replace"),
    )


if __name__ == "__main__":
    main()
