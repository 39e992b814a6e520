"""The user agent client: registrations, digest, requests of our own, and the identities of a call (kamailio-uac)."""
