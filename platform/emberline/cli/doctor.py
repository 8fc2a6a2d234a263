"""`emberline doctor`."""


def doctor() -> int:
    """Tell what this machine has and lacks, and what each lack costs.

    Exits with 1 when something is lacking without which nothing works.
    """
    from rich.console import Console

    from emberline.doctor.checks import CHECKS

    console = Console(soft_wrap=True, highlight=False, emoji=False)
    findings = [check() for check in CHECKS]
    for finding in findings:
        mark = "ok  " if not finding.costs else ("LACK" if finding.required else "less")
        console.print(f"{mark}  {finding.subject:12} {finding.found}", markup=False)
        if finding.costs:
            console.print(f"{'':18} {finding.costs}", markup=False)
        if finding.hint:
            console.print(f"{'':18} hint: {finding.hint}", markup=False)
    return int(any(finding.costs and finding.required for finding in findings))
