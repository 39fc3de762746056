"""Statements about content, kept beside it: in-toto statements in DSSE envelopes, attached as OCI referrers."""
