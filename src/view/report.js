// The report's only action: draw its plots. The rest of the page is there without scripts.

sluice.drawPlots(document.getElementById("plots"), sluice.data.plots, sluice.data.table);
