"""Who may call the HTTP server, and for what. Does I/O: the file of tokens, and what a verifier asks its issuer.

``authentication`` decides on each request before its body is read, ``verifiers`` has the ways to prove who one is (a
row each, as the SDK's ``TokenVerifier``), ``scopes`` what a request needs, ``token_file`` the server's own tokens.
"""
