"""The shell of the old client against a service of our own."""

import os
import subprocess

from service import Failed


def expect(condition, what):
    if not condition:
        raise Failed(what)


class Client:
    def __init__(self, program, service):
        self.program, self.service = program, service

    def run(self, *words, check=True):
        connection = self.service.connection()
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("OS_", "KARBOR_"))}
        command = [self.program, "--os-no-client-auth", "--karbor-url", connection["url"],
                   "--os-auth-token", connection["token"], *map(str, words)]
        done = subprocess.run(command, text=True, capture_output=True, env=environment)
        if check and done.returncode:
            raise Failed(f"{' '.join(map(str, words))}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout if check else done

    def table(self, *words):
        """Returns the rows of the table that a command prints, as lists of cells."""
        rows = [line for line in self.run(*words).splitlines() if line.startswith("|")]
        return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]

    def records(self, *words):
        """Returns the rows of the table that a command prints, each as a mapping."""
        names, *rows = self.table(*words)
        return [dict(zip(names, row)) for row in rows if len(row) == len(names)]

    def fields(self, *words):
        """Returns a two-column table as a mapping."""
        return {row[0]: row[1] for row in self.table(*words)[1:] if len(row) >= 2}
