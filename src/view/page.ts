// The shell of every page Sluice makes: one HTML file that holds its styles, uPlot and our drawing code, and asks nobody
// for anything. The content security policy says so to the browser too: no request leaves a report; a dashboard may only
// talk to the server it came from.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { html, json, raw, type Content } from "./html.ts";

export interface Page {
  title: string;
  body: Content;
  /** What the page's scripts find as `sluice.data`. */
  data: unknown;
  /** Our own script of this page, beside this file. */
  script: "report.js" | "dashboard.js";
  /** May open connections to its own server. */
  connects: boolean;
}

export function contentSecurityPolicy(connects: boolean): string {
  const connect = connects ? "; connect-src 'self'" : "";
  return `default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'${connect}`;
}

export function renderPage({ title, body, data, script, connects }: Page): string {
  // Ours are modules: each has its own names, and they run in this order once the page is there.
  const modules = [own("charts.js"), own(script)];
  return html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta http-equiv="Content-Security-Policy" content="${contentSecurityPolicy(connects)}" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="color-scheme" content="light dark" />
        <link rel="icon" href="data:," />
        <title>${title}</title>
        <style>
          ${packaged("uplot/dist/uPlot.min.css")}
          ${own("page.css")}
        </style>
      </head>
      <body>
        ${body}
        <script type="application/json" id="data">
          ${json(data)}
        </script>
        <script>
          ${packaged("uplot/dist/uPlot.iife.min.js")};
        </script>
        ${modules.map(
          (text) =>
            html`<script type="module">
              ${text};
            </script> `,
        )}
      </body>
    </html> `.text;
}

function own(name: string): Content {
  return raw(readFileSync(join(import.meta.dir, name), "utf8"));
}

function packaged(path: string): Content {
  return raw(readFileSync(Bun.resolveSync(path, import.meta.dir), "utf8"));
}
