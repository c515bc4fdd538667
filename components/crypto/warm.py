"""What must have run once before the seal."""

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from components.crypto.constants import KEY_BYTES, NONCE


def warm_up() -> None:
    """Uses the cipher once: OpenSSL fetches it then, and whatever that takes cannot be had in a sealed domain."""
    cipher = ChaCha20Poly1305(bytes(KEY_BYTES))
    cipher.decrypt(NONCE.pack(0), cipher.encrypt(NONCE.pack(0), b"", None), None)
