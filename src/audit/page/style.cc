#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "audit/page/parts.h"
#include "audit/page/svg.h"

namespace carat::audit::page {
namespace {

// A colour in OKLab, where the way between two colours looks even.
struct Lab {
  double l = 0, a = 0, b = 0;
};

double to_linear(double c) { return c <= 0.04045 ? c / 12.92 : std::pow((c + 0.055) / 1.055, 2.4); }

double from_linear(double c) {
  c = std::clamp(c, 0.0, 1.0);
  return c <= 0.0031308 ? 12.92 * c : 1.055 * std::pow(c, 1 / 2.4) - 0.055;
}

Lab lab(int rgb) {
  const double r = to_linear((rgb >> 16 & 255) / 255.0), g = to_linear((rgb >> 8 & 255) / 255.0),
               b = to_linear((rgb & 255) / 255.0);
  const double l = std::cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const double m = std::cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const double s = std::cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return {0.2104542553 * l + 0.7936177850 * m - 0.0040720468 * s,
          1.9779984951 * l - 2.4285922050 * m + 0.4505937099 * s,
          0.0259040371 * l + 0.7827717662 * m - 0.8086757660 * s};
}

std::string hex(const Lab& c) {
  const double l = std::pow(c.l + 0.3963377774 * c.a + 0.2158037573 * c.b, 3);
  const double m = std::pow(c.l - 0.1055613458 * c.a - 0.0638541728 * c.b, 3);
  const double s = std::pow(c.l - 0.0894841775 * c.a - 1.2914855480 * c.b, 3);
  const auto byte = [](double v) { return std::lround(255 * from_linear(v)); };
  return fmt::format("#{:02x}{:02x}{:02x}",
                     byte(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s),
                     byte(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s),
                     byte(-0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s));
}

// Along the stops, `t` from 0 to 1.
template <size_t N>
Lab along(const std::array<int, N>& stops, double t) {
  const double at = t * static_cast<double>(N - 1);
  const size_t i = std::min(static_cast<size_t>(at), N - 2);
  const double f = at - static_cast<double>(i);
  const Lab a = lab(stops[i]), b = lab(stops[i + 1]);
  return {a.l + f * (b.l - a.l), a.a + f * (b.a - a.a), a.b + f * (b.b - a.b)};
}

struct Theme {
  std::array<int, 3> series;  // from the closest candidate to the furthest
  std::array<int, 3> heat;    // from a small error to a large one
  const char* rest;
};

const Theme kLight = {{0x0b7f79, 0x8a7f9c, 0xd2571b},
                      {0xcfe6e2, 0xf3bd8f, 0xad3604},
                      "color-scheme:light;--bg:#f7f6f2;--card:#fffefb;--ink:#1d1c1a;--soft:#5f5b54;"
                      "--line:#e2ded5;--faint:#efece5;--a:#0b7f79;--a-soft:#0b7f7914;--b:#c24f16;"
                      "--b-soft:#d2571b22;--mark:#ffe1c9;--bad:#b3261e"};
const Theme kDark = {{0x3fd0c4, 0x9c94b8, 0xff9352},
                     {0x1f3a3a, 0xb4622d, 0xffc08f},
                     "color-scheme:dark;--bg:#101315;--card:#181c1f;--ink:#eceae4;--soft:#a3a29b;"
                     "--line:#2c3236;--faint:#20262a;--a:#3fd0c4;--a-soft:#3fd0c41a;--b:#ff9352;"
                     "--b-soft:#ff935226;--mark:#5e3213;--bad:#ff8a80"};

std::string variables(const Theme& theme) {
  std::string out = theme.rest;
  for (int i = 0; i < kSeriesColours; ++i) {
    out += fmt::format(";--s{}:{}", i, hex(along(theme.series, i / (kSeriesColours - 1.0))));
  }
  for (int i = 0; i < kHeatColours; ++i) {
    out += fmt::format(";--h{}:{}", i, hex(along(theme.heat, i / (kHeatColours - 1.0))));
  }
  return out;
}

constexpr const char* kText = R"css(
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.55 system-ui,-apple-system,
"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;font-feature-settings:"kern";
overflow-wrap:anywhere}
main,header,footer{max-width:1216px;margin:0 auto;padding:0 32px}
h1,h2,h3{line-height:1.2;letter-spacing:-.012em;margin:0;text-wrap:balance}
h1{font-size:clamp(1.45rem,3.9vw,2.3rem);font-weight:720;letter-spacing:-.025em}
h1 .vs{color:var(--soft);font-weight:400}
h2{font-size:1.5rem;font-weight:680;margin-top:72px}
h3{font-size:1.08rem;font-weight:650}
p{margin:0;max-width:68ch}
a{color:var(--a);text-underline-offset:3px}
.brand{display:flex;align-items:center;gap:9px;padding:28px 0 44px;font-size:.9rem;
font-weight:620}
.brand svg{width:19px;height:19px;fill:none;stroke:var(--a);stroke-width:1.7;
stroke-linejoin:round}
.brand span{color:var(--soft);font-weight:400}
.verdict{font-size:clamp(1.06rem,2.4vw,1.28rem);line-height:1.5;margin-top:18px;max-width:62ch}
.verdict strong{font-weight:680}
.verdict+.verdict{font-size:1rem;color:var(--soft);margin-top:10px}
.tiles{display:grid;grid-template-columns:repeat(4,1fr);gap:1px;
margin:36px 0 0;background:var(--line);border:1px solid var(--line);border-radius:14px;
overflow:hidden}
.tiles div{background:var(--card);padding:18px 20px}
.tiles dt{font-size:.84rem;color:var(--soft)}
.tiles dd{margin:2px 0 0;font-size:1.65rem;font-weight:680;letter-spacing:-.02em;
font-variant-numeric:tabular-nums}
.tiles small{display:block;font-size:.8rem;font-weight:400;letter-spacing:0;color:var(--soft)}
nav{margin-top:28px;font-size:.9rem;display:flex;flex-wrap:wrap;gap:6px 20px}
.lead{color:var(--soft);margin-top:8px}
.chip{display:inline-block;font-size:.74rem;font-weight:600;line-height:1.5;padding:1px 8px;
border-radius:99px;border:1px solid var(--line);color:var(--soft);background:var(--bg);
vertical-align:.12em;letter-spacing:0;max-width:100%}
.chip.role{border-color:var(--a);color:var(--a);background:var(--a-soft)}
.chip.bad{border-color:var(--bad);color:var(--bad);background:none}
.notice{border-left:3px solid var(--b);padding:2px 0 2px 16px;margin-top:28px}
figure,.card{margin:24px 0 0;background:var(--card);border:1px solid var(--line);
border-radius:14px;padding:24px 26px 22px}
figcaption p{color:var(--soft);font-size:.92rem;margin:4px 0 18px}
figure p.below{color:var(--soft);font-size:.86rem;margin-top:12px}
.scroll{overflow-x:auto;overscroll-behavior-x:contain;-webkit-overflow-scrolling:touch}
.scroll:focus-visible,summary:focus-visible,a:focus-visible{outline:2px solid var(--a);
outline-offset:3px;border-radius:4px}
table{border-collapse:collapse;width:100%;font-size:.9rem}
th,td{padding:9px 10px;text-align:left;vertical-align:baseline;
border-bottom:1px solid var(--faint)}
thead th{font-size:.78rem;font-weight:600;color:var(--soft);border-bottom-color:var(--line);
vertical-align:bottom;white-space:nowrap}
tbody tr:last-child>*{border-bottom:0}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.n small,td small{display:block;color:var(--soft);font-size:.76rem;font-weight:400}
table.main{min-width:960px;font-size:.83rem}
table.main th,table.main td{padding-left:6px;padding-right:6px}
table.main th[scope=row]{font-weight:620;min-width:150px;max-width:230px;position:sticky;left:0;
background:var(--card);z-index:1}
table.main th[scope=row] .chip{margin-left:4px}
table.main thead th:first-child{position:sticky;left:0;background:var(--card);z-index:2}
table.main td.bar{padding:7px 0 0;vertical-align:top}
table.main td.bar svg{width:84px;height:22px;margin:0}
table.pairs{font-size:.83rem;min-width:900px}
table.pairs tr>*{padding:0 7px;vertical-align:middle}
table.pairs tbody th{font-weight:620}
table.pairs tbody tr>*{height:44px}
table.pairs thead th{padding-bottom:6px;vertical-align:bottom}
table.pairs .plot{width:34%;padding:0 4px}
table.pairs .plot text{font-weight:400}
table.pairs .verdict-cell{width:1%;white-space:nowrap;text-align:right}
.dot{display:inline-block;width:.62em;height:.62em;border-radius:50%;background:var(--c);
margin-right:.55em;flex:none}
.dot.off{background:none;box-shadow:inset 0 0 0 2px var(--c)}
.rank{color:var(--soft);font-weight:400;font-variant-numeric:tabular-nums;margin-right:.5em}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:.85rem;list-style:none;margin:0 0 16px;
padding:0}
svg{display:block;width:100%;height:auto;overflow:visible}
svg text{fill:var(--ink);font-family:inherit;font-size:13px;font-variant-numeric:tabular-nums}
svg .t{fill:var(--soft);font-size:12px}
svg .grid{stroke:var(--faint);stroke-width:1;fill:none}
svg .grid2{stroke:var(--line);stroke-width:1;fill:none}
svg .axis{stroke:var(--line);stroke-width:1;fill:none}
svg .front{stroke:var(--a);stroke-width:2;fill:none;stroke-linejoin:round}
svg .beyond{fill:var(--a-soft);stroke:none}
svg .floor{stroke:var(--soft);stroke-width:1;stroke-dasharray:3 4;fill:none}
svg .whisker{stroke:var(--c);stroke-width:1.6;fill:none}
svg .point{fill:var(--c);stroke:var(--card);stroke-width:2}
svg .off{fill:var(--card);stroke:var(--c);stroke-width:2.2}
svg .leader{stroke:var(--soft);stroke-width:.8;fill:none}
svg .name{font-weight:600;paint-order:stroke;stroke:var(--card);stroke-width:4px;
stroke-linejoin:round}
svg .name.dim{font-weight:400;fill:var(--soft)}
svg .fill{fill:var(--c);stroke:none}
svg .pale{fill:var(--c);opacity:.28;stroke:none}
svg .series{stroke:var(--c);stroke-width:1.8;fill:none;stroke-linejoin:round;stroke-linecap:round}
svg .curve{stroke:var(--c);stroke-width:2.4;fill:none}
svg .zero{stroke:var(--soft);stroke-width:1.2;fill:none}
svg .same{fill:var(--faint);stroke:none}
.narrow,.narrow-only{display:none}
.panels{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,222px),1fr));
gap:26px 28px}
.panels h4{font-size:.9rem;font-weight:620;margin:0;line-height:1.3}
.panels p{font-size:.8rem;color:var(--soft);margin:0 0 8px;line-height:1.35;min-height:2.7em}
details{margin:12px 0 0;border-top:1px solid var(--line);padding-top:12px}
details:first-of-type{margin-top:0}
details .worst+details{margin-top:12px;border-top:0;padding-top:0}
summary{cursor:pointer;font-weight:620;font-size:.95rem}
summary .soft{font-weight:400}
.soft{color:var(--soft)}
details>*:not(summary),details>.worst{margin-top:14px}
.heat-scale{display:flex;align-items:center;gap:10px;font-size:.82rem;color:var(--soft);
margin:0 0 16px}
.heat-scale i{display:block;height:10px;flex:1;max-width:240px;border-radius:3px}
.types{display:flex;flex-wrap:wrap;gap:6px;margin:14px 0 0;padding:0;list-style:none;
font-size:.82rem;color:var(--soft)}
.types li{border:1px solid var(--line);border-radius:6px;padding:1px 8px}
.worst{list-style:none;margin:0;padding:0;display:grid;gap:14px}
.worst>li{border:1px solid var(--line);border-radius:10px;padding:14px 16px;min-width:0}
.worst .head{display:flex;flex-wrap:wrap;gap:2px 14px;font-size:.82rem;color:var(--soft);
font-variant-numeric:tabular-nums}
.worst .head b{color:var(--ink);font-weight:680}
.context{font:.86rem/1.65 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;margin:8px 0 12px;
max-width:none;color:var(--soft)}
.context mark{background:var(--mark);color:var(--ink);border-radius:4px;padding:1px 3px;
font-weight:600;box-decoration-break:clone;-webkit-box-decoration-break:clone}
.tops{display:grid;grid-template-columns:1fr 1fr;gap:8px 28px}
.tops h4{font-size:.78rem;font-weight:600;color:var(--soft);margin:0 0 4px}
.tops ol{list-style:none;margin:0;padding:0;font-size:.84rem}
.tops div:first-child{--c:var(--soft)}
.tops li{display:grid;grid-template-columns:minmax(0,8.5em) 1fr 4.6em;gap:10px;
align-items:center;padding:1px 0}
.tops code{justify-self:start;max-width:100%;white-space:nowrap;
overflow:hidden;text-overflow:ellipsis}
.tops .n{color:var(--soft);font-size:.78rem}
.tops .hit code{background:var(--mark);border-radius:4px;padding:0 4px;margin-left:-4px}
.meter{display:block;height:7px;border-radius:4px;background:var(--faint);overflow:hidden}
.meter i{display:block;height:100%;background:var(--c,var(--a));border-radius:4px}
code{font:.92em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.notes{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,300px),1fr));
gap:26px 40px;margin-top:24px}
.notes p{font-size:.93rem;color:var(--soft);margin-top:4px}
.facts{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:7px 24px;margin:14px 0 0;
font-size:.88rem}
.facts dt{color:var(--soft)}
.facts dd{margin:0}
.facts dd+dd{grid-column:2}
pre{font:.84rem/1.6 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;white-space:pre-wrap;
margin:6px 0 0;padding:12px 14px;background:var(--bg);border:1px solid var(--line);
border-radius:8px}
.hash{font-size:.74rem;color:var(--soft);word-break:break-all;white-space:normal}
footer{padding-top:64px;padding-bottom:56px;font-size:.86rem;color:var(--soft)}
@media(max-width:820px){.wide{display:none}.tiles{grid-template-columns:1fr 1fr}
svg.narrow{display:block;max-width:440px;
margin-inline:auto}p.narrow-only{display:block}}
@media(max-width:820px){table.pairs{min-width:0}table.pairs,table.pairs tbody,table.pairs thead{
display:block}table.pairs tr{display:grid;grid-template:"name verdict" auto "plot plot" auto
"nats times" auto/1fr auto;padding:12px 0 10px;border-bottom:1px solid var(--faint)}
table.pairs tbody tr:last-child{border-bottom:0}
table.pairs tr>*{display:block;border:0;padding:0 4px}table.pairs tbody tr>*{height:auto}
table.pairs tbody th{grid-area:name;align-self:center}table.pairs .verdict-cell{grid-area:verdict;
width:auto}table.pairs .plot{grid-area:plot;width:auto;padding:4px 0}
table.pairs .nats{grid-area:nats;text-align:left}table.pairs .times{grid-area:times}
table.pairs .more,table.pairs thead th:first-child,table.pairs thead .verdict-cell{display:none}
table.pairs thead tr{grid-template:"nats times" auto "plot plot" auto/1fr auto;padding:0;border:0}
table.pairs thead br{display:none}}
@media(max-width:640px){main,header,footer{padding:0 16px}h2{margin-top:52px}
.brand{padding:18px 0 28px}figure,.card{padding:18px 12px 16px;border-radius:12px}
figcaption,.card>h3,.card>p,.legend,.heat-scale{padding:0 4px}
.tiles div{padding:13px 14px}.tiles dd{font-size:1.32rem}
.tops{grid-template-columns:1fr;gap:12px}.facts{grid-template-columns:1fr;gap:0}
.facts dt{margin-top:9px;font-size:.8rem}.facts dd+dd{grid-column:1}
.panels{gap:24px}.panels p{min-height:0}table.main th[scope=row]{max-width:150px;min-width:120px;
box-shadow:1px 0 0 var(--line)}}
@media print{:root{)css";

constexpr const char* kPrint = R"css(;--bg:#fff;--card:#fff}
body{font-size:10.5pt}main,header,footer{max-width:none;padding:0}figure,.card{break-inside:avoid;
border-color:#ddd}nav{display:none}.scroll{overflow:visible}
table.main{min-width:0;font-size:7pt}table.main thead th,table.main small{font-size:6pt}
table.main th,table.main td{padding:3px}table.main .chip{display:none}
table.main th[scope=row]{min-width:0}.wide{display:block}svg.narrow,p.narrow-only{display:none}
table.main td.bar{display:none}table.main thead th.bar{display:none}
table.pairs{min-width:0;font-size:7pt}
h2{break-after:avoid}.worst>li{break-inside:avoid}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
)css";

}  // namespace

std::string style_sheet() {
  const std::string light = variables(kLight);
  return ":root{" + light + "}\n@media(prefers-color-scheme:dark){:root{" + variables(kDark) +
         "}}" + kText + light + kPrint;
}

}  // namespace carat::audit::page
