"""The API: what the pages can do but signing, for programs that act for a person. docs/api.md tells how to use it."""
