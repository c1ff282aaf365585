export function MapPage() { return <p>soon</p>; }
