"""The agent: one file to copy to a host; it shows the host's log lines to whoever can sign a question. Python 3.6 on."""
