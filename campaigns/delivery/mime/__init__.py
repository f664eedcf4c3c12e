"""Composition of one mail: MIME parts, headers, quoted-printable bodies, DKIM signatures."""
