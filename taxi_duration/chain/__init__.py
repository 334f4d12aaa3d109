"""One run of the notebooks' chain."""

import sys

# nbformat imports jsonschema, which imports this checker of IRIs where JupyterLab has brought it:
# seconds for a grammar that no notebook asks for. None means "not installed" to an import.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
