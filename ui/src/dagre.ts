// The one place that knows dagre's module: the layered layout of graphs.
import dagre from '@dagrejs/dagre';

export const Graph = dagre.graphlib.Graph;
export const layout = dagre.layout;
