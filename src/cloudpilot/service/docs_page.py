"""The page that shows our own API and tries it, made in the browser from `/openapi.json` without anything from elsewhere."""

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Cloudpilot API</title>
<style>
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}
details{border:1px solid #d0d7de;border-radius:6px;margin:.5rem 0;padding:.5rem .8rem}
summary{cursor:pointer} code,pre,textarea,input{font:13px/1.45 ui-monospace,monospace}
pre{background:#f6f8fa;padding:.6rem;overflow:auto;max-height:24rem} textarea{width:100%;height:7rem}
b.m{display:inline-block;min-width:4.2rem}
</style>
<h1>Cloudpilot API</h1>
<p>The document: <a href="/openapi.json">/openapi.json</a>. <label>API key <input id="key" type="password" size="50" autocomplete="off"></label></p>
<main id="all"></main>
<script>
const make=(tag,text,parent)=>{const e=document.createElement(tag);if(text)e.textContent=text;if(parent)parent.append(e);return e};
const resolve=(doc,s)=>s&&s.$ref?doc.components.schemas[s.$ref.split('/').pop()]:s;
fetch('/openapi.json').then(r=>r.json()).then(doc=>{
 const all=document.getElementById('all');
 for(const [path,methods] of Object.entries(doc.paths))for(const [method,op] of Object.entries(methods)){
  const box=make('details',null,all),head=make('summary',null,box);
  const m=make('b',method.toUpperCase(),head);m.className='m';make('code',path,head);make('span',' '+op.summary,head);
  make('p',op.description,box);
  const fields=(op.parameters||[]).map(p=>{const l=make('label',p.name+(p.required?' (needed) ':' '),make('p',null,box));const i=make('input',null,l);return [p,i]});
  const json=op.requestBody&&op.requestBody.content['application/json'],raw=op.requestBody&&!json;
  let area;if(json||raw){area=make('textarea',null,box);if(json){area.value='{}';make('p','Takes:',box);make('pre',JSON.stringify(resolve(doc,json.schema),null,1),box)}}
  const button=make('button','Send',make('p',null,box)),out=make('pre','',box);
  button.onclick=async()=>{let url=path;const q=new URLSearchParams();
   for(const [p,i] of fields){if(p.in==='path')url=url.replace('{'+p.name+'}',encodeURIComponent(i.value));else if(i.value)q.set(p.name,i.value)}
   const r=await fetch(url+(q.size?'?'+q:''),{method:method.toUpperCase(),body:area?area.value:undefined,headers:{'X-API-Key':document.getElementById('key').value}});
   const t=await r.text();let shown=t;try{shown=JSON.stringify(JSON.parse(t),null,1)}catch(e){}
   out.textContent=r.status+'\\n'+shown};
 }});
</script></html>
"""
