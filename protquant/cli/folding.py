"""Commands that predict: `fold`, `merge` and `contacts`."""

import typer

from protquant import predicting
from protquant.cli.app import BAD_INPUT, SOME_FAILED, Json, announce
from protquant.cli.commands import command
from protquant.cli.tables import print_json, print_table
from protquant.options import ContactsOptions, FoldOptions, MergeOptions


@command("fold")
def fold(options: FoldOptions, as_json: Json = False) -> None:
    """Fold the records of a FASTA file; write PDB, mmCIF, PAE and a picture for each, and a table.

    Example: `protquant fold -i proteins.fasta -o out/ --quant w8a8-pwlq`

    To write the files of nf-core/proteinfold: `protquant fold -i proteins.fasta -o out/ --layout nf-core`

    A repeated run skips finished records. Exit code 1: some records failed (`failures.csv` has the reasons); 2: nothing
    could be done.
    """
    announce(f"loading {options.model} for the recipe {options.quant}")
    run = predicting.fold_fasta(**vars(options))
    if as_json:
        print_json(run.to_dict())
    elif run.rows:
        interfaces = ["iptm"] if any(row["chains"] > 1 for row in run.rows) else []
        columns = ["name", "length", "chains", "mean_plddt", "ptm", *interfaces, "ca_outliers", "clashes", "recycles"]
        columns += ["recipe", "execution", "kernels", "warnings"]
        print_table(run.rows, columns, str(options.output))
    if run.failures:
        raise typer.Exit(SOME_FAILED if run.rows else BAD_INPUT)


@command("merge")
def merge(options: MergeOptions, as_json: Json = False) -> None:
    """Merge the shards of a large run into one manifest and one table, as from one run.

    Example: `protquant merge out/ -i proteins.fasta`
    """
    merged = predicting.merge_shards(**vars(options))
    if as_json:
        print_json(merged)
        return
    typer.echo("{output}: {shards} shards, {done} targets are done, {failed} failed".format(**merged))
    if merged["unfinished"]:
        typer.echo(f"{merged['unfinished']} shards were interrupted: `protquant fold` without --shard folds the rest")


@command("contacts")
def contacts(options: ContactsOptions, as_json: Json = False) -> None:
    """Predict contact maps with ESM-2; write the most probable pairs, all probabilities, and a picture for each.

    Example: `protquant contacts -i proteins.fasta -o out/ --quant w8`
    """
    announce(f"loading {options.model} for the recipe {options.quant}")
    document = predicting.contacts_fasta(**vars(options))
    if as_json:
        print_json(document)
    else:
        columns = ["name", "length", "recipe", "execution", "kernels", "warnings"]
        print_table(document["targets"], columns, document["table"])
    if document["failures"]:
        raise typer.Exit(SOME_FAILED if document["targets"] else BAD_INPUT)
