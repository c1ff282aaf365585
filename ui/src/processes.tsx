export function Processes() { return <p>soon</p>; }
