"""Runs notebooks from cleared outputs; see run_notebooks.sh, which calls this with `run` or `save` and their names.

A cell fails if the kernel says so, if it writes to standard error (the kernel says `ok` of a panic and of an error that `?` passes on), or if an
output names a place of this machine. Outputs that are written have no times and no numbers of the kernel's own.
"""

import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

FOLDER = Path("notebooks")
# Building the library is part of the first cell.
SECONDS = 3600
PLACES = re.compile(r"/(?:home|root|Users|tmp|var|work|opt|usr|mnt|builds?)/[\w.-]|[A-Z]:\\\\")


def texts(output):
    """Everything that an output shows."""
    if output.output_type == "stream":
        yield output.text
    elif output.output_type == "error":
        yield from [output.ename, output.evalue, *output.traceback]
    else:
        yield from (str(text) for text in output.get("data", {}).values())


def clear(notebook):
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None


def fault(cell):
    """Why a cell that was run is not as it should be; None if it is."""
    for output in cell.outputs:
        if output.output_type == "error" or output.get("name") == "stderr":
            return "\n".join(texts(output))
        for text in texts(output):
            if found := PLACES.search(text):
                return f"its output names a place of this machine: {text[max(0, found.start() - 40):found.end() + 40]}"
    return None


def joined(outputs):
    """The streams of a cell as one, however the kernel cut them."""
    whole = []
    for output in outputs:
        if whole and output.output_type == "stream" == whole[-1].output_type and output.name == whole[-1].name:
            whole[-1].text += output.text
        else:
            whole.append(output)
    return whole


def run(name, save):
    path = FOLDER / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    clear(notebook)
    client = NotebookClient(notebook, timeout=SECONDS, startup_timeout=SECONDS, kernel_name="rust", resources={"metadata": {"path": str(FOLDER)}}, record_timing=False)
    begun = time.monotonic()
    built = 0.0
    with client.setup_kernel():
        count = 0
        for index, cell in enumerate(notebook.cells):
            if cell.cell_type != "code":
                continue
            started = time.monotonic()
            try:
                client.execute_cell(cell, index)
                reason = fault(cell)
            except CellExecutionError as error:
                reason = str(error)
            count += 1
            if count == 1:
                built = time.monotonic() - started
            if reason:
                print(f"{path}: cell {count} fails:\n{''.join(cell.source)}\n\n{reason}", file=sys.stderr)
                return False
            cell.outputs = joined(cell.outputs)
            cell.execution_count = count
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = count
    seconds = time.monotonic() - begun
    print(f"{path}: {count} cells in {seconds:.0f} s, {built:.0f} s of them the first with the build", flush=True)
    if save:
        path.write_text(nbformat.writes(notebook, indent=1, ensure_ascii=False) + "\n")
    return True


def main():
    save = sys.argv[1] == "save"
    good = [run(name, save) for name in sys.argv[2:]]
    sys.exit(0 if all(good) else 1)


main()
