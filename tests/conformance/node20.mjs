// Lets the conformance suite start on Node 20: it imports fs.globSync, which Node has since 22, for commands not used here.
import { register } from "node:module";

const fs = `
export * from "node:fs";
export { default } from "node:fs";
export function globSync() { throw new Error("globSync needs Node 22"); }
`;
const inline = (text) => `data:text/javascript,${encodeURIComponent(text)}`;
register(inline(`
export async function resolve(name, context, next) {
    return name === "fs" ? { url: ${JSON.stringify(inline(fs))}, shortCircuit: true } : next(name, context);
}
`));
