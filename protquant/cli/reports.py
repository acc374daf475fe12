"""A report on quantized sites, for people."""

from typing import TYPE_CHECKING

from protquant.cli.tables import print_table

if TYPE_CHECKING:
    from protquant.quant import Report

__all__ = ["print_report"]


def print_report(report: "Report", title: str, sites: bool = False) -> None:
    """Print the median signal to noise of each kind and format, and each site if asked for."""
    frame = report.to_frame()
    if sites:
        columns = ["site", "format", "reason", "effective_bits", "snr_db", "clipped"]
        print_table(frame[columns].to_dict("records"), columns, title)
    grouped = frame.groupby(["kind", "format"], sort=False).agg(sites=("site", "size"), snr_db=("snr_db", "median"))
    print_table(grouped.reset_index().to_dict("records"), ["kind", "format", "sites", "snr_db"], "median SNR by kind")
