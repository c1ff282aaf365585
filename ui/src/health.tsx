export function Health() { return <p>soon</p>; }
