"""validate_schema.py WRITER SCHEMA: runs WRITER FOLDER and validates what it wrote. Exit 77: jsonschema is missing."""
import copy
import json
import pathlib
import subprocess
import sys
import tempfile

try:
    import jsonschema
    validator_class = jsonschema.Draft202012Validator
except (ImportError, AttributeError):
    print("SKIPPED: the Python module jsonschema (4.0 or newer; Debian: python3-jsonschema) is not installed")
    sys.exit(77)

writer, schema_path = sys.argv[1:]
schema = json.loads(pathlib.Path(schema_path).read_text())
validator_class.check_schema(schema)
validator = validator_class(schema)
failures = 0
with tempfile.TemporaryDirectory() as folder:
    subprocess.run([writer, folder], check=True)
    files = sorted(pathlib.Path(folder).glob("*.json"))
    assert len(files) == 3, files
    documents = {path.name: json.loads(path.read_text()) for path in files}
for name, document in documents.items():
    for error in validator.iter_errors(document):
        failures += 1
        print(f"{name}: {'/'.join(map(str, error.absolute_path))}: {error.message[:300]}")

# The schema must also be able to refuse.
full = documents["full.json"]


def spoiled(change):
    document = copy.deepcopy(full)
    change(document)
    return document


for what, document in {
    "unknown member": spoiled(lambda d: d.update(surprise=1)),
    "missing member": spoiled(lambda d: d["variants"][0].pop("duration")),
    "wrong type": spoiled(lambda d: d["variants"][0]["trials"][0].update(duration="1 s")),
    "unknown verdict": spoiled(lambda d: d["verdict"].update(status="maybe")),
    "verdict with dummy weights": spoiled(lambda d: d["engine"].update(weights="dummy")),
}.items():
    if validator.is_valid(document):
        failures += 1
        print(f"the schema accepts: {what}")
sys.exit(1 if failures else 0)
