"""Bounces and complaints: intake, parsing and effects.

The intake (``smtp_listener``, ``imap``, ``webhook_endpoint``, the ``bounce-pipe`` command) only stores what arrives,
durably. A scheduler tick parses the stored messages (``parsing``: MIME, then DSN, ARF or prose, then the
classification) and applies the effects on the send and its recipient (``effects.record``). A report is attributed
to a send only by a token that this installation signed.
"""
