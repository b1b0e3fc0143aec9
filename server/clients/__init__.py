"""The coding agents that this server is shipped for: what each one's configuration looks like, and how it is written.

`table` says what each client needs; `shipped` renders it into the files of this repository; `installing` merges it into a
person's own files, by way of `json_text` and `toml_block`, and takes exactly that out again.
"""
