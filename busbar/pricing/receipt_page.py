"""A receipt as a page: HTML of its own, for screens of any size, light or dark, and for paper."""

from __future__ import annotations

from html import escape

from busbar.pricing.receipt import Receipt, Row, labelled

_STYLE = """
:root{color-scheme:light dark;--ink:#16191d;--soft:#5c6570;--line:#d9dee4;--card:#fff;--ground:#eef1f4;--accent:#0b6b53}
@media(prefers-color-scheme:dark){
:root{--ink:#e8ebee;--soft:#98a2ad;--line:#363d45;--card:#1b1f24;--ground:#101316;--accent:#5fd0af}}
*{box-sizing:border-box}
body{margin:0;padding:2rem 1rem;background:var(--ground);color:var(--ink);font:1rem/1.5 system-ui,sans-serif}
main{max-width:38rem;margin:auto;padding:2rem;background:var(--card);border:1px solid var(--line);
border-top:.35rem solid var(--accent);border-radius:.5rem;overflow-wrap:anywhere}
header{display:flex;flex-wrap:wrap;gap:0 1.5rem;justify-content:space-between;align-items:baseline}
h1{margin:0;font-size:1.5rem;line-height:1.25}
.paid{font-size:1.5rem;font-weight:700;color:var(--accent);white-space:nowrap}
p{margin:.25rem 0 0;color:var(--soft)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1.25rem;margin:1.5rem 0}
dt{color:var(--soft)}
dd{margin:0}
table{width:100%;border-collapse:collapse}
td,th{padding:.5rem 0;text-align:left;vertical-align:top;font-weight:inherit;border-top:1px solid var(--line)}
td:last-child{padding-left:1rem;text-align:right}
td,dd,.paid{font-variant-numeric:tabular-nums}
td:last-child{white-space:nowrap}
caption{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
small{display:block;color:var(--soft);font-size:.875rem}
tfoot td,tfoot th{padding:.25rem 0;border:0;color:var(--soft)}
tfoot tr:first-child>*{padding-top:.75rem;border-top:2px solid var(--line)}
tfoot tr:last-child>*{padding-top:.5rem;color:var(--ink);font-size:1.125rem;font-weight:700}
footer{margin-top:1.5rem;padding-top:.5rem;border-top:1px solid var(--line)}
@media(max-width:30rem){body{padding:0}main{padding:1.25rem;border-width:.35rem 0 0;border-radius:0}}
@media print{:root{--ink:#000;--soft:#333;--line:#999;--card:#fff;--ground:#fff;--accent:#000}
body{padding:0;font-size:11pt}main{max-width:none;padding:0;border:0}tr{break-inside:avoid}}
"""


def receipt_html(receipt: Receipt) -> str:
    """Lay a receipt out as an HTML document that needs nothing else, with everything escaped."""
    heading = receipt.heading
    above = "".join(f"<p>{escape(text)}</p>" for text in (heading.seller, heading.place) if text)
    facts = "".join(f"<dt>{escape(label)}</dt><dd>{escape(value)}</dd>" for label, value in labelled(receipt))
    sums = "".join(
        f'<tr><th scope="row">{escape(label)}</th><td>{escape(amount)}</td></tr>' for label, amount in receipt.sums
    )
    below = "".join(f"<p>{escape(remark)}</p>" for remark in receipt.remarks)
    paid = f'<div class="paid">{escape(receipt.sums[-1][1])}</div>'
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(heading.title)} {escape(heading.receipt_id)}</title><style>{_STYLE}</style></head>\n"
        f"<body><main><header><h1>{escape(heading.title)}</h1>{paid}</header>"
        f"{above}<dl>{facts}</dl>\n"
        f"<table><caption>What was charged</caption><tbody>{''.join(map(_row, receipt.rows))}</tbody>\n"
        f"<tfoot>{sums}</tfoot></table>"
        f"{f'<footer>{below}</footer>' if below else ''}</main></body></html>\n"
    )


def _row(row: Row) -> str:
    under = " × ".join(text for text in (row.quantity, row.price) if text)
    unbroken = escape(under).replace(" %", "\N{NO-BREAK SPACE}%")
    small = f"<small>{unbroken}</small>" if under else ""
    return f'<tr><th scope="row">{escape(row.what)}{small}</th><td>{escape(row.amount)}</td></tr>'
